"""Snapping: constants on grids where no value can lie near a rounding tie, so that every executor gets the same codes.

A 4-bit network amplifies: one code that rounds the other way changes a fifth of the codes behind it. Rounding is decided by a
float comparison, and executors order float operations differently. In a snapped program no code depends on that order:

    layers, skip paths      multiplier * acc + addend is an integer below 2^24, exact in float32 however it is summed; the step m
                            of the quantizer behind it is an odd integer, and n / m with m odd is never half an integer. ReLU,
                            ReLU6 and the linear part of hard-sigmoid merge into the quantizer's clip
    pooled, gated tensors   8-bit codes of the nonlinearity's output; sums and products of codes are integers, the steps behind
                            them odd
    behind h-swish          the code is a function of one accumulator, an integer: the addend is moved (by less than the distance
                            of two accumulators, settle.py) until none of them lies near a boundary

The additional 8-bit codes and the rounded multipliers are all that a network feels; the snap phase trains with them, straight
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
    Function,
    Gate,
    Layer,
    Multiply,
    Operation,
    Pool,
    Program,
    Quantize,
    Reader,
    readers,
)
from subfour.quantizers import HSWISH_MINIMUM

EXACT_BITS = 24
"""Integers up to 2^24 are exact in float32, in any order of summation."""

HEADROOM = 2
"""Accumulators and skip values may grow to this times the largest one that calibration saw."""

CODE_BITS = 8
LARGEST_CODE = 255
"""Codes of pooled and gated tensors, and of gates."""

FEWEST_BITS, MOST_BITS = 4, 12
"""Of a multiplier behind which there is an h-swish, whatever the accumulators. Where accumulators pass 2^19, exactness rests on
the executor adding up integers."""

SMALLEST_MULTIPLIER = 2.0**-40
"""A channel scaled by less is dead: accumulators of 2^24 would not move its value by 2^-16, and in its grid constants of ordinary
size would leave int64."""

LARGEST_INTEGER = 2.0 ** (EXACT_BITS - 1)
"""Of values on integer paths."""

TIE_BITS = 19
"""An odd step m leaves a margin of 1 / (2 m); with m * levels below 2^19 it is 8 times the error of a float32 division."""

LARGEST_STEP = 2.0**15
"""OpenVINO 2026.4.1 computes signed codes behind a skip as round(n / m + 128), which float32 rounds by 2^-17: half the margin."""

LINEAR: tuple[Function | None, ...] = (None, "relu", "relu6", "hardsigmoid")
"""Nonlinearities that a quantizer's clip can say."""

HARD_SIGMOID_SLOPE, HARD_SIGMOID_SHIFT = 1 / 6, 3.0
"""hardsigmoid(v) = clip((v + 3) / 6, 0, 1)"""


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


def check_structure(program: Program) -> None:
    """Raise unless a program can be snapped; constants are not looked at.

    Raises:
        ValueError: it combines values in a way that has no integer form; the message names it.
    """
    _Structure(program)


class _Structure:
    """Which values of a program get a code of their own, and which lie on skip paths."""

    def __init__(self, program: Program) -> None:
        self.operations = {operation.name: operation for operation in program.operations}
        self.coded: set[str] = set()
        """Outputs of nonlinearities that are pooled, gated, or begin a skip."""
        self.gates: set[str] = set()
        """Outputs of nonlinearities that gate."""
        self.skips: set[str] = set()
        """Operands and results of sums."""
        for operation in program.operations:
            if isinstance(operation, Pool | Multiply):
                self._code(operation.inputs[0], operation)
            if isinstance(operation, Multiply):
                self.gates.add(operation.inputs[1])
            if isinstance(operation, Add):
                self.skips |= {operation.name, *operation.inputs}
                for name in operation.inputs:
                    if not isinstance(self.operations[name], Layer | Add):
                        self._code(name, operation)

        for operation in program.operations:
            curved = {function not in LINEAR for _, function in readers(program, operation.name)}
            if isinstance(operation, Layer | Add) and len(curved) > 1:
                raise ValueError(f"{operation.name}: it feeds quantizers with and without h-swish between; it cannot be snapped")
            if operation.name in self.skips and True in curved:
                raise ValueError(f"{operation.name}: a sum, or a part of one, enters h-swish; it cannot be snapped")

    def _code(self, name: str, consumer: Operation) -> None:
        source = self.operations.get(name)
        known = isinstance(source, Activate) and source.function in ("relu", "relu6", "hardswish")
        if not (known and isinstance(self.operations.get(source.inputs[0]), Layer)):  # type: ignore[union-attr]
            raise ValueError(
                f"{consumer.name}: it takes {name}, which is no ReLU or h-swish output of a layer; it cannot be snapped"
            )
        self.coded.add(name)


class _Snapper:
    """Rewrites one program, operation by operation."""

    def __init__(self, program: Program, snapping: Snapping) -> None:
        self.program, self.snapping = program, snapping
        self.structure = _Structure(program)
        self.skip_units = self._skip_units()
        self.units: dict[str, Tensor | float] = {}
        """Integers per 1 of a value, by name, where values are integers."""
        self.widened: dict[str, Tensor] = {}
        """By how much an odd step is wider than the step it replaces, by quantizer."""
        self.code_steps: dict[str, Tensor] = {}
        """Step of a coded value's 8-bit code, by value."""

    def snapped(self) -> Program:
        """Return the program, rewritten."""
        operations = [rewritten for operation in self.program.operations for rewritten in self._rewritten(operation)]
        return Program(operations=tuple(operations), snapped=True)

    def _skip_units(self) -> float:
        """Return integers per 1 on all skip paths: as many as float32 and the odd steps allow.

        One for all, because most of a network's sums hang together in a few chains of like range.
        """
        limits = [2.0**20]
        for name in self.structure.skips:
            limits.append(LARGEST_INTEGER / (HEADROOM * max(self.snapping.largest[name], 1e-3)))
            operation = self.structure.operations[name]
            if isinstance(operation, Layer):
                limits.append(self._most_units(operation))
            for quantize, _ in readers(self.program, name):
                limits.append(_largest_step(quantize.bits) / float(quantize.step.detach()))
        return 2.0 ** floor(log2(min(limits)))

    def _most_units(self, layer: Layer) -> float:
        """Return how many integers per 1 keep a layer's products and sums exact."""
        extent = float(layer.multiplier.detach().max()) * self.snapping.accumulators[layer.name]
        return LARGEST_INTEGER / (HEADROOM * max(extent, float(layer.addend.detach().abs().max()), 1e-6))

    def _rewritten(self, operation: Operation) -> list[Operation]:
        match operation:
            case Layer():
                return [self._layer(operation)]
            case Activate():
                return self._activate(operation)
            case Quantize():
                return [self._quantize(operation)]
            case Add():
                self.units[operation.name] = self.skip_units
                first, second = (f"{name}.skip" if name in self.structure.coded else name for name in operation.inputs)
                return [replace(operation, inputs=(first, second))]
            case Pool() | Multiply():
                return self._on_codes(operation)
            case Flatten() if operation.inputs[0] in self.widened:
                self.widened[operation.name] = self.widened[operation.inputs[0]]
        return [operation]

    def _layer(self, layer: Layer) -> Layer:
        multiplier, addend = layer.multiplier * self.widened.get(layer.inputs[0], 1.0), layer.addend
        found = self._readers(layer.name)
        if layer.name in self.structure.skips:
            self.units[layer.name] = self.skip_units
        elif found and all(function in LINEAR for _, function in found):
            if any(function == "hardsigmoid" for _, function in found):
                addend = addend + HARD_SIGMOID_SHIFT
            # The odd step of the first is exactly its own, those of others nearly.
            steps = [_value_step(*reader) for reader in found]
            limits = [
                _largest_step(quantize.bits) / float(step.detach()) for (quantize, _), step in zip(found, steps, strict=True)
            ]
            most = min(self._most_units(layer), *limits)
            self.units[layer.name] = _odd(steps[0].detach() * most, down=True) / steps[0]
        if layer.name in self.units:
            units = self.units[layer.name]
            return replace(layer, multiplier=_rounded(multiplier * units), addend=_rounded(addend * units), integer=True)
        grid = channel_grid(multiplier.detach(), self.snapping.accumulators[layer.name])
        return replace(layer, multiplier=_rounded(multiplier / grid) * grid, addend=_rounded(addend / grid) * grid)

    def _on_codes(self, operation: Pool | Multiply) -> list[Operation]:
        """Return the sum or the product of codes in place of that of values."""
        name, source = operation.name, operation.inputs[0]
        codes, zero = f"{source}.code", self._zero(source)
        rewritten: list[Operation] = []
        if zero and not any(quantize.offset for quantize, _ in readers(self.program, name)):
            # PACT behind h-swish: the quantizer counts from 0 and not from -3/8, where these codes begin.
            rewritten.append(Dequantize(name=f"{name}.centred", inputs=(codes,), zero=zero, factor=torch.tensor(1.0)))
            codes, zero = f"{name}.centred", 0
        if isinstance(operation, Pool):
            self.units[name] = self.snapping.positions[name] / self.code_steps[source]
            return [*rewritten, CodeSum(name=name, inputs=(codes,))]
        self.units[name] = LARGEST_CODE / self.code_steps[source]
        gate = f"{operation.inputs[1]}.code"
        return [*rewritten, Gate(name=name, inputs=(codes, gate), zero=zero, largest=LARGEST_CODE)]

    def _readers(self, layer: str) -> list[Reader]:
        """Return what reads a layer's value, with the codes that pools, gates and skips will read."""
        found = readers(self.program, layer)
        for consumer in self.program.consumers(layer):
            if isinstance(consumer, Activate) and (quantize := self._own_code(consumer)):
                found.append((quantize, consumer.function))
        return found

    def _own_code(self, operation: Activate) -> Quantize | None:
        """Return the 8-bit quantizer of a value that is pooled or gated, begins a skip, or gates; in real values."""
        name = operation.name
        if name in self.structure.gates:
            step, offset = torch.tensor(1 / LARGEST_CODE), 0.0
        elif name in self.structure.coded:
            zero = self._zero(name)
            step = torch.tensor(-HSWISH_MINIMUM / zero if zero else max(self.snapping.largest[name], 1e-3) / LARGEST_CODE)
            offset = HSWISH_MINIMUM if zero else 0.0
        else:
            return None
        return Quantize(name=f"{name}.code", inputs=(name,), step=step, offset=offset, qmin=0, qmax=LARGEST_CODE, bits=CODE_BITS)

    def _zero(self, name: str) -> int:
        """Return the 8-bit code of 0: 0 for ReLU; for h-swish the step divides 3/8, so that products stay integers."""
        operation = self.structure.operations[name]
        if isinstance(operation, Activate) and operation.function == "hardswish":
            extent = self.snapping.largest[name] - HSWISH_MINIMUM
            return max(1, floor(-HSWISH_MINIMUM * LARGEST_CODE / extent))
        return 0

    def _activate(self, operation: Activate) -> list[Operation]:
        name, source = operation.name, operation.inputs[0]
        rewritten: list[Operation] = [] if source in self.units else [operation]
        if (quantize := self._own_code(operation)) is not None:
            code = self._quantize(quantize)
            self.code_steps[name] = quantize.step * self.widened.get(code.name, 1.0)
            rewritten.append(code)
        if name in self.structure.skips:
            factor = _rounded(self.code_steps[name] * self.skip_units)
            rewritten.append(Dequantize(name=f"{name}.skip", inputs=(f"{name}.code",), zero=self._zero(name), factor=factor))
        return rewritten

    def _quantize(self, operation: Quantize) -> Quantize:
        """Return a quantizer whose input is an integer with an odd integer step, and any other as it is.

        The layer behind it makes up for the change of step, so that only the clipping moves.
        """
        source = operation.inputs[0]
        previous = self.structure.operations[source]
        step, qmax = operation.step, operation.qmax
        if isinstance(previous, Activate) and previous.inputs[0] in self.units:
            source = previous.inputs[0]
            if previous.function == "relu6":
                qmax = min(qmax, round(6 / float(step)))
            step = _value_step(operation, previous.function)
        if source not in self.units:
            return operation
        real = step * self.units[source]
        odd = _odd(real)
        self.widened[operation.name] = odd / real
        return replace(operation, inputs=(source,), step=odd, offset=0.0, qmax=qmax)


def channel_grid(multiplier: Tensor, largest_accumulator: int) -> Tensor:
    """Return a power of two per channel: multiples of it, with this accumulator, have exact products in float32.

    Args:
        multiplier: [O], not negative.
        largest_accumulator: magnitude of what it multiplies, as calibration saw it.
    """
    bits = min(max(EXACT_BITS - 1 - ceil(log2(HEADROOM * largest_accumulator)), FEWEST_BITS), MOST_BITS)
    return torch.exp2(torch.floor(torch.log2(multiplier.clamp(min=SMALLEST_MULTIPLIER))) + 1 - bits)


def _rounded(values: Tensor) -> Tensor:
    """Round to integers, with a straight-through gradient."""
    return values + (values.round() - values).detach()


def _odd(value: Tensor, *, down: bool = False) -> Tensor:
    """Return the nearest odd integer, or the next one below, at least 1, with a straight-through gradient."""
    odd = (2 * torch.floor((value - float(down)) / 2) + 1).clamp(min=1)
    return value + (odd - value).detach()


def _value_step(quantize: Quantize, function: Function | None) -> Tensor:
    """Return a quantizer's step on the value before a linear nonlinearity."""
    return quantize.step / HARD_SIGMOID_SLOPE if function == "hardsigmoid" else quantize.step


def _largest_step(bits: int) -> float:
    return min(float(2.0 ** (TIE_BITS - bits)), LARGEST_STEP)
