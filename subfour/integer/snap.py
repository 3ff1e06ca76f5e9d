"""Snapping: constants on grids where no value can lie near a rounding tie, so that every executor gets the same codes.

A 4-bit network amplifies: one code that rounds the other way changes a fifth of the codes behind it. Rounding is decided by a
float comparison, and executors order float operations differently. In a snapped program no code depends on that order:

    multipliers and addends     multiples of 2^-e with so few bits that multiplier * acc + addend is exact in float32
    skip paths                  integers below 2^24, whose sums are exact; their quantizers' steps are odd integers, and n / m with
                                m odd is never half an integer
    pooled and gated tensors    8-bit codes of the nonlinearity's output; sums and products of codes are integers, the steps
                                behind them odd
    everything else             a function of one accumulator, an integer: the addend is moved (by less than a thousandth of a
                                step, settle.py) until no accumulator lies near a boundary

The additional 8-bit codes and the odd steps are the only changes a network feels; the snap phase trains with them, straight
through the rounding of the constants.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil, floor, log2
from typing import Any

import torch
from torch import Tensor

from subfour.integer.execute import accumulate, compute
from subfour.integer.program import (
    IMAGE,
    Activate,
    Add,
    CodeSum,
    Dequantize,
    Flatten,
    Gate,
    Layer,
    Multiply,
    Operation,
    Pool,
    Program,
    Quantize,
)
from subfour.quantizers import HSWISH_MINIMUM

EXACT_BITS = 24
"""Integers up to 2^24 are exact in float32, in any order of summation."""

HEADROOM = 2
"""Accumulators and skip values may grow to this times the largest one that calibration saw."""

CODE_BITS = 8
LARGEST_CODE = 2**CODE_BITS - 1
"""Codes of pooled and gated tensors, and of gates."""

FEWEST_BITS = 4
"""Of a multiplier, whatever the accumulators; beyond 2^19, exactness rests on the executor adding up integers."""

SMALLEST_MULTIPLIER = 2.0**-60
"""A channel scaled by less is dead."""

TIE_BITS = 19
"""An odd step m leaves a margin of 1 / (2 m); with m * levels below 2^19 it is 8 times the error of a float32 division."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapping:
    """What snapping must know of a network's values; measured once, then part of the run."""

    accumulators: Mapping[str, int]
    """Largest magnitude of a layer's accumulators, by layer."""
    largest: Mapping[str, float]
    """Largest magnitude of each value that is coded or lies on a skip path, by name."""
    positions: Mapping[str, int]
    """Height times width of what is pooled, by pool."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Snapping":
        """Rebuild it."""
        return cls(**data)


@torch.no_grad()
def measure(program: Program, batches: Iterable[Tensor]) -> Snapping:
    """Return what snapping must know, from a few batches of images.

    Args:
        program: not snapped.
        batches: uint8 pixels [N, 3, H, W].
    """
    structure = _Structure(program)
    watched = structure.coded | structure.skips
    accumulators: dict[str, int] = {}
    largest: dict[str, float] = {}
    positions: dict[str, int] = {}
    for pixels in batches:
        values = {IMAGE: pixels}
        for operation in program.operations:
            inputs = [values[name] for name in operation.inputs]
            if isinstance(operation, Layer):
                extreme = int(accumulate(operation, *inputs).abs().max())
                accumulators[operation.name] = max(accumulators.get(operation.name, 1), extreme)
            if isinstance(operation, Pool):
                positions[operation.name] = inputs[0].shape[2] * inputs[0].shape[3]
            value = compute(operation, inputs)
            if operation.name in watched:
                largest[operation.name] = max(largest.get(operation.name, 0.0), float(value.abs().max()))
            values[operation.name] = value
    return Snapping(accumulators=accumulators, largest=largest, positions=positions)


def snap(program: Program, snapping: Snapping) -> Program:
    """Return the snapped program, differentiable in the constants of the program given.

    Args:
        program: not snapped, from `build_program`.
        snapping: from `measure`, of this network.

    Raises:
        ValueError: the network combines values in a way that has no integer form; the message names it.
    """
    return _Snapper(program, snapping).snapped()


class _Structure:
    """Which values of a program get a code of their own, and which lie on skip paths."""

    def __init__(self, program: Program) -> None:
        self.operations = {operation.name: operation for operation in program.operations}
        self.coded: set[str] = set()
        """Outputs of nonlinearities that are pooled, gated, or begin a skip."""
        self.skips: set[str] = set()
        """Operands and results of sums."""
        for operation in program.operations:
            if isinstance(operation, Pool | Multiply):
                self._code(operation.inputs[0], operation)
            if isinstance(operation, Add):
                self.skips |= {operation.name, *operation.inputs}
                for name in operation.inputs:
                    if not isinstance(self.operations[name], Layer | Add):
                        self._code(name, operation)

    def _code(self, name: str, consumer: Operation) -> None:
        source = self.operations.get(name)
        known = isinstance(source, Activate) and source.function in ("relu", "relu6", "hardswish")
        if not (known and isinstance(self.operations.get(source.inputs[0]), Layer)):  # type: ignore[union-attr]
            raise ValueError(f"{consumer.name}: it takes {name}, which is no ReLU or h-swish output of a layer; it cannot be snapped")
        self.coded.add(name)


class _Snapper:
    """Rewrites one program."""

    def __init__(self, program: Program, snapping: Snapping) -> None:
        self.program, self.snapping = program, snapping
        self.structure = _Structure(program)
        self.unit = self._unit()
        self.widened: dict[str, Tensor] = {}
        """By how much an odd step is wider than the step it replaces, by quantizer."""

    def snapped(self) -> Program:
        """Return the program, rewritten."""
        operations = [rewritten for operation in self.program.operations for rewritten in self._rewritten(operation)]
        return Program(operations=tuple(operations), snapped=True)

    def _unit(self) -> float:
        """Return the unit's inverse, 2^u, of all skip paths: as fine as float32 and the odd steps allow.

        One for all, because most of a network's sums hang together in a few chains of like range.
        """
        limits = [2.0**20]
        for name in self.structure.skips:
            limits.append(2.0 ** (EXACT_BITS - 1) / (HEADROOM * max(self.snapping.largest[name], 1e-3)))
            operation = self.structure.operations[name]
            if isinstance(operation, Layer):
                extent = float(operation.multiplier.detach().abs().max()) * self.snapping.accumulators[name]
                limits.append(2.0**EXACT_BITS / (HEADROOM * max(extent, 1e-3)))
            for consumer in self.program.consumers(name):
                if isinstance(consumer, Quantize):
                    limits.append(2.0**TIE_BITS / (2**consumer.bits * float(consumer.step.detach())))
        return 2.0 ** floor(log2(min(limits)))

    def _rewritten(self, operation: Operation) -> list[Operation]:
        match operation:
            case Layer():
                return [self._layer(operation)]
            case Activate():
                return self._activate(operation)
            case Quantize():
                return [self._quantize(operation)]
            case Add():
                first, second = (f"{name}.skip" if name in self.structure.coded else name for name in operation.inputs)
                return [replace(operation, inputs=(first, second))]
            case Pool():
                return [CodeSum(name=operation.name, inputs=(f"{operation.inputs[0]}.code",))]
            case Multiply():
                values, gate = operation.inputs
                codes = Quantize(
                    name=f"{gate}.code",
                    inputs=(gate,),
                    step=torch.tensor(1 / LARGEST_CODE),
                    offset=0.0,
                    qmin=0,
                    qmax=LARGEST_CODE,
                    bits=CODE_BITS,
                )
                zero = self._zero(values)
                return [codes, Gate(name=operation.name, inputs=(f"{values}.code", codes.name), zero=zero, largest=LARGEST_CODE)]
        return [operation]

    def _layer(self, layer: Layer) -> Layer:
        """Round multiplier and addend so that every step of multiplier * acc + addend is exact in float32."""
        multiplier, addend = layer.multiplier * self.widened.get(layer.inputs[0], 1.0), layer.addend
        if layer.name in self.structure.skips:
            integers = {"multiplier": _rounded(multiplier * self.unit), "addend": _rounded(addend * self.unit)}
            return replace(layer, integer=True, **integers)
        grid = channel_grid(multiplier.detach(), self.snapping.accumulators[layer.name])
        return replace(layer, multiplier=_rounded(multiplier / grid) * grid, addend=_rounded(addend / grid) * grid)

    def _activate(self, operation: Activate) -> list[Operation]:
        name, source = operation.name, operation.inputs[0]
        if source in self.structure.skips and operation.function != "relu":
            raise ValueError(f"{name}: {operation.function} of a sum cannot be snapped")
        if name not in self.structure.coded:
            return [operation]
        rewritten: list[Operation] = [operation]
        zero, step = self._zero(name), torch.tensor(self._step(name))
        offset = HSWISH_MINIMUM if zero else 0.0
        rewritten.append(
            Quantize(
                name=f"{name}.code", inputs=(name,), step=step, offset=offset, qmin=0, qmax=LARGEST_CODE, bits=CODE_BITS
            )
        )
        if name in self.structure.skips:
            factor = _rounded(step * self.unit)
            rewritten.append(Dequantize(name=f"{name}.skip", inputs=(f"{name}.code",), zero=zero, factor=factor))
        return rewritten

    def _quantize(self, operation: Quantize) -> Quantize:
        """Return a quantizer whose input is an integer with an odd integer step, and any other as it is.

        The layer behind it makes up for the change of step, so that only the clipping moves.
        """
        units = self._units(operation.inputs[0])
        if units is None:
            return operation
        step = _odd(operation.step * units)
        self.widened[operation.name] = step / (operation.step * units)
        return replace(operation, step=step, offset=0.0)

    def _units(self, name: str) -> float | None:
        """Return how many integers make 1 on a value that is an integer in the snapped program; None where it is none."""
        operation = self.structure.operations[name]
        match operation:
            case Flatten():
                return self._units(operation.inputs[0])
            case Pool():
                return self.snapping.positions[name] / self._step(operation.inputs[0])
            case Multiply():
                return LARGEST_CODE / self._step(operation.inputs[0])
            case Activate() if operation.inputs[0] in self.structure.skips:
                return self.unit
            case Layer() | Add() if name in self.structure.skips:
                return self.unit
        return None

    def _zero(self, name: str) -> int:
        """Return the 8-bit code of 0: 0 for ReLU; for h-swish the step divides 3/8, so that products stay integers."""
        operation = self.structure.operations[name]
        if isinstance(operation, Activate) and operation.function == "hardswish":
            extent = self.snapping.largest[name] - HSWISH_MINIMUM
            return max(1, round(-HSWISH_MINIMUM * LARGEST_CODE / extent))
        return 0

    def _step(self, name: str) -> float:
        """Return the step of a coded value's 8-bit code."""
        zero = self._zero(name)
        return -HSWISH_MINIMUM / zero if zero else max(self.snapping.largest[name], 1e-3) / LARGEST_CODE


def channel_grid(multiplier: Tensor, largest_accumulator: int) -> Tensor:
    """Return a power of two per channel: multiples of it, with this accumulator, have exact products in float32.

    Args:
        multiplier: [O], not negative.
        largest_accumulator: magnitude of what it multiplies, as calibration saw it.
    """
    bits = EXACT_BITS - 1 - ceil(log2(HEADROOM * largest_accumulator))
    return torch.exp2(torch.floor(torch.log2(multiplier.clamp(min=SMALLEST_MULTIPLIER))) + 1 - max(bits, FEWEST_BITS))


def _rounded(values: Tensor) -> Tensor:
    """Round to integers, with a straight-through gradient."""
    return values + (values.round() - values).detach()


def _odd(value: Tensor) -> Tensor:
    """Return the nearest odd integer, at least 1, with a straight-through gradient."""
    odd = (2 * torch.floor(value / 2) + 1).clamp(min=1)
    return value + (odd - value).detach()
