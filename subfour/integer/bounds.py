"""How large the integers of a program can become, whatever the image: from codes and weights alone, so a proof.

With P and N the sums over a channel's weight codes of what is positive and what is negative in code * weight at the ends of the
input's range, every accumulator lies in [N, P], and so does every partial sum, in whatever order an executor adds up. An executor
in float32 multiplies the weights first: it is exact while multiplier * acc + addend, in units of the channel's grid, stays within
2^24. Where the proof does not reach that far, `exact` says up to which accumulator it holds.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from subfour.integer.grids import EXACT_BITS, SMALLEST_MULTIPLIER, channel_grid
from subfour.integer.measure import Snapping
from subfour.integer.program import Add, CodeSum, Dequantize, Flatten, Layer, Lookup, Program, Quantize

INT32 = 2**31 - 1

EXACT = 2**EXACT_BITS


class Reach(NamedTuple):
    """Ends of what every channel's accumulators, or a sum's values, can be; integers in float64, [O]."""

    lowest: Tensor
    highest: Tensor

    @property
    def magnitude(self) -> Tensor:
        """The larger of both, without sign."""
        return torch.maximum(-self.lowest, self.highest)


class Bound(NamedTuple):
    """Of a layer's accumulators, or of the values of a sum, of two values or over positions."""

    worst: int
    """No image gives a larger magnitude."""
    exact: int
    """Up to this magnitude every executor in float32 is exact; those that add up integers always are."""

    @property
    def proven(self) -> bool:
        """Whether executors in float32 are exact for every image."""
        return self.worst <= self.exact


@torch.no_grad()
def accumulator_reach(program: Program) -> dict[str, Reach]:
    """Return what each layer's accumulators can be.

    Raises:
        ValueError: an accumulator may leave int32; the message names the layer.
    """
    codes: dict[str, tuple[int, int]] = {}
    reach: dict[str, Reach] = {}
    for operation in program.operations:
        match operation:
            case Lookup() | Quantize():
                codes[operation.name] = operation.qmin, operation.qmax
            case Flatten():
                codes[operation.name] = codes[operation.inputs[0]]
            case Layer():
                first, last = codes[operation.inputs[0]]
                # Not beyond 0 on either side: a border is code 0, and partial sums begin there.
                lowest, highest = min(first, 0), max(last, 0)
                weights = operation.codes.flatten(1)
                positive = weights.clamp(min=0).sum(dim=1, dtype=torch.float64)
                negative = weights.clamp(max=0).sum(dim=1, dtype=torch.float64)
                found = Reach(negative * highest + positive * lowest, positive * highest + negative * lowest)
                if (largest := int(found.magnitude.max())) > INT32:
                    raise ValueError(f"{operation.name}: its accumulators may reach {largest}, beyond int32; use fewer bits")
                reach[operation.name] = found
    return reach


@torch.no_grad()
def bounds(program: Program, snapping: Snapping) -> dict[str, Bound]:
    """Return the bound of each layer and each sum of a snapped program, sums over positions included.

    Args:
        program: from `settle`.
        snapping: what it was snapped with.

    Raises:
        ValueError: an accumulator may leave int32; the message names the layer.
    """
    reach = accumulator_reach(program)
    values: dict[str, int] = {}
    codes = {quantize.name: quantize for quantize in program.quantizers}
    found: dict[str, Bound] = {}
    for operation in program.operations:
        match operation:
            case Layer():
                # Of the logits, which no quantizer reads, nothing but the accumulators counts.
                logits = operation.name == program.output
                multiplier, addend = (torch.ones(1), torch.zeros(1)) if logits else _in_units(operation, snapping.accumulators)
                worst = reach[operation.name].magnitude
                values[operation.name] = int((multiplier * worst + addend).max())
                # A layer whose every channel is dead has accumulators of 0.
                reached = worst.max().clamp(min=1)
                exact = torch.where(multiplier * worst + addend <= EXACT, reached, torch.floor((EXACT - addend) / multiplier))
                found[operation.name] = Bound(int(worst.max()), int(exact.min()))
            case Dequantize():
                quantize = codes[operation.inputs[0]]
                extent = max(quantize.qmax - operation.zero, operation.zero - quantize.qmin)
                values[operation.name] = int(operation.factor) * extent
            case CodeSum():
                source, positions = operation.inputs[0], snapping.positions[operation.name]
                extent = max(-codes[source].qmin, codes[source].qmax) if source in codes else values[source]
                found[operation.name] = Bound(positions * extent, EXACT)
            case Add():
                first, second = operation.inputs
                values[operation.name] = values[first] + values[second]
                found[operation.name] = Bound(values[operation.name], EXACT)
    return found


def _in_units(layer: Layer, accumulators: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Return multiplier and magnitude of the addend in units of the channel's grid, [O]."""
    multiplier, addend = layer.multiplier.double(), layer.addend.double().abs()
    if layer.integer:
        return multiplier, addend
    unit = channel_grid(multiplier, accumulators[layer.name])
    return (multiplier / unit).clamp(min=SMALLEST_MULTIPLIER), addend / unit
