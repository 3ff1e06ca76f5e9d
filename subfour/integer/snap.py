"""Snapping: constants on grids where no value can lie near a rounding tie, so that every executor gets the same codes.

A 4-bit network amplifies: one code that rounds the other way changes a fifth of the codes behind it. Rounding is decided by a
float comparison, and executors order float operations differently. In a snapped program no code depends on that order:

    layers, skip paths      multiplier * acc + addend is an integer below 2^24, exact in float32 however it is summed; the step m
                            of the quantizer behind it is an odd integer, its offset t, if any, is an integer too, and
                            (n - t) / m with m odd is never half an integer. ReLU, ReLU6 and the linear part of hard-sigmoid
                            merge into the quantizer's clip
    pooled, gated tensors   8-bit codes of the nonlinearity's output; sums and products of codes are integers, the steps behind
                            them odd
    behind h-swish          the code is a function of one accumulator, an integer: the addend, and where that is
                            not enough the multiplier, is moved a little (settle.py) until none lies near a boundary

The additional 8-bit codes and the rounded multipliers are all that a network feels; the snap phase trains with them, straight
through the rounding of the constants.
"""

from dataclasses import replace
from math import ceil, floor, inf, log2

import torch
from torch import Tensor

from subfour.integer.bounds import accumulator_reach
from subfour.integer.grids import (
    CODE_BITS,
    FINE_MULTIPLIER,
    HEADROOM,
    LARGEST_CODE,
    LARGEST_INTEGER,
    LARGEST_MOVE,
    LARGEST_REACH,
    channel_grid,
    largest_step,
    odd_below,
    odd_step,
    rounded,
)
from subfour.integer.measure import Snapping
from subfour.integer.program import (
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
from subfour.integer.structure import LINEAR, Structure
from subfour.quantizers import HSWISH_MINIMUM

HARD_SIGMOID_SLOPE, HARD_SIGMOID_SHIFT = 1 / 6, 3.0
"""hardsigmoid(v) = clip((v + 3) / 6, 0, 1)"""

SMALLEST_REAL, LARGEST_REAL = 1e-30, 1e30
"""Of a quantizer before it is snapped: between them a step, its inverse and their products with units are ordinary floats."""


def snap(program: Program, snapping: Snapping) -> Program:
    """Return the snapped program, differentiable in the constants of the program given.

    Args:
        program: not snapped, from `build_program`.
        snapping: from `measure`, of this network.

    Raises:
        ValueError: the network combines values in a way that has no integer form; the message names it.
        FloatingPointError: training has left a constant that lies on no grid, or a range far from 0; names its layer or
            quantizer.
    """
    _check_constants(program)
    return _Snapper(program, snapping).snapped()


def _check_constants(program: Program) -> None:
    """Raise unless layers have finite constants, and quantizers a step; see `snap`."""
    for operation in program.operations:
        if isinstance(operation, Layer):
            finite = operation.multiplier.isfinite() & operation.addend.isfinite()
            if not bool(finite.all()):
                raise FloatingPointError(f"{operation.name}: its scale or shift is not finite, so it cannot be snapped")
        elif isinstance(operation, Quantize):
            step, offset = (float(torch.as_tensor(value).detach()) for value in (operation.step, operation.offset))
            if not SMALLEST_REAL < step < LARGEST_REAL:
                raise FloatingPointError(f"{operation.name}: its step is {step:.3g}, so it cannot be snapped")
            if not abs(offset) < LARGEST_REAL:
                raise FloatingPointError(f"{operation.name}: its offset is {offset:.3g}, so it cannot be snapped")


def coarse_layers(snapped: Program, snapping: Snapping) -> list[str]:
    """Return the layers in which rounding the multipliers to integers is felt.

    That is where most multipliers are so small that rounding may change them by a sixteenth or more, and where this moves the
    largest accumulator's value by more than `LARGEST_MOVE` of the narrowest range behind the layer. (Rounding by little moves
    all of a channel's values nearly alike, which training the addend makes up for.)

    Args:
        snapped: from `snap`.
        snapping: with the largest accumulators.
    """
    return [
        layer.name
        for layer in snapped.operations
        if isinstance(layer, Layer)
        and layer.integer
        and layer.multiplier.median() < FINE_MULTIPLIER
        and snapping.accumulators[layer.name] / 2 > LARGEST_MOVE * min(_ranges_behind(snapped, layer.name), default=inf)
    ]


def _ranges_behind(snapped: Program, name: str) -> list[float]:
    """Return the ranges of all quantizers that read integers, directly or through sums."""
    found = []
    for operation in snapped.consumers(name):
        if isinstance(operation, Quantize):
            found.append(float(operation.step.detach()) * (operation.qmax - operation.qmin))
        elif isinstance(operation, Add):
            found += _ranges_behind(snapped, operation.name)
    return found


class _Snapper:
    """Rewrites one program, operation by operation."""

    def __init__(self, program: Program, snapping: Snapping) -> None:
        self.program, self.snapping = program, snapping
        self.structure = Structure(program)
        self.reach = accumulator_reach(program)
        self.skip_units: dict[str, float] = {}
        """Integers per 1 on skip paths, by name."""
        for chain in self.structure.chains:
            self.skip_units |= dict.fromkeys(chain, self._chain_units(chain))
        self.units: dict[str, Tensor | float] = {}
        """Integers per 1 of a value, by name, where values are integers."""
        self.widened: dict[str, Tensor] = {}
        """By how much an odd step is wider than the step it replaces, by quantizer."""
        self.origin: dict[str, float] = {}
        """What 0 stands for in sums and products of codes, by name."""
        self.code_steps: dict[str, Tensor] = {}
        """Step of a coded value's 8-bit code, by value."""

    def snapped(self) -> Program:
        """Return the program, rewritten."""
        operations = [rewritten for operation in self.program.operations for rewritten in self._rewritten(operation)]
        return Program(operations=tuple(operations), snapped=True)

    def _chain_units(self, chain: set[str]) -> float:
        """Return integers per 1 on skip paths that hang together: as many as float32 and the odd steps allow."""
        limits = [2.0**20]
        for name in chain:
            limits.append(LARGEST_INTEGER / (HEADROOM * max(self.snapping.largest[name], 1e-3)))
            operation = self.structure.operations[name]
            if isinstance(operation, Layer):
                limits.append(self._most_units(operation))
            for quantize, _ in readers(self.program, name):
                limits.append(largest_step(quantize.bits) / float(quantize.step.detach()))
        return 2.0 ** floor(log2(min(limits)))

    def _most_units(self, layer: Layer) -> float:
        """Return how many integers per 1 keep a layer's products and sums exact.

        Channel by channel: where hardly anything happens batch norm has made a large multiplier for small accumulators, and
        together with the largest accumulator of another channel it would leave all others multipliers of 1 or 2.
        """
        accumulators = self.reach[layer.name].magnitude.clamp(max=HEADROOM * self.snapping.accumulators[layer.name])
        extent = layer.multiplier.detach() * accumulators + layer.addend.detach().abs()
        return LARGEST_INTEGER / max(float(extent.max()), 1e-6)

    def _rewritten(self, operation: Operation) -> list[Operation]:
        match operation:
            case Layer():
                return [self._layer(operation)]
            case Activate():
                return self._activate(operation)
            case Quantize():
                return [self._quantize(operation)]
            case Add():
                self.units[operation.name] = self.skip_units[operation.name]
                first, second = (f"{name}.skip" if name in self.structure.coded else name for name in operation.inputs)
                return [replace(operation, inputs=(first, second))]
            case Pool() | Multiply():
                return [self._on_codes(operation)]
            case Flatten() if operation.inputs[0] in self.widened:
                self.widened[operation.name] = self.widened[operation.inputs[0]]
        return [operation]

    def _layer(self, layer: Layer) -> Layer:
        multiplier, addend = layer.multiplier * self.widened.get(layer.inputs[0], 1.0), layer.addend
        found = self._readers(layer.name)
        if layer.name in self.skip_units:
            self.units[layer.name] = self.skip_units[layer.name]
        elif found and all(function in LINEAR for _, function in found):
            if any(function == "hardsigmoid" for _, function in found):
                addend = addend + HARD_SIGMOID_SHIFT
            # The odd step of the first is exactly its own, those of others nearly.
            steps = [_value_step(*reader) for reader in found]
            limits = [
                largest_step(quantize.bits) / float(step.detach()) for (quantize, _), step in zip(found, steps, strict=True)
            ]
            most = min(self._most_units(layer), *limits)
            self.units[layer.name] = odd_below(steps[0].detach() * most) / steps[0]
        if layer.name in self.units:
            units = self.units[layer.name]
            return replace(layer, multiplier=rounded(multiplier * units), addend=rounded(addend * units), integer=True)
        grid = channel_grid(multiplier.detach(), self.snapping.accumulators[layer.name])
        return replace(layer, multiplier=rounded(multiplier / grid) * grid, addend=rounded(addend / grid) * grid)

    def _on_codes(self, operation: Pool | Multiply) -> CodeSum | Gate:
        """Return the sum or the product of codes in place of that of values."""
        name, source = operation.name, operation.inputs[0]
        codes, zero = f"{source}.code", self._zero(source)
        self.origin[name] = HSWISH_MINIMUM if zero else 0.0
        if isinstance(operation, Pool):
            self.units[name] = self.snapping.positions[name] / self.code_steps[source]
            return CodeSum(name=name, inputs=(codes,))
        self.units[name] = LARGEST_CODE / self.code_steps[source]
        return Gate(name=name, inputs=(codes, f"{operation.inputs[1]}.code"), zero=zero, largest=LARGEST_CODE)

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
        if name in self.skip_units:
            factor = rounded(self.code_steps[name] * self.skip_units[name])
            rewritten.append(Dequantize(name=f"{name}.skip", inputs=(f"{name}.code",), zero=self._zero(name), factor=factor))
        return rewritten

    def _quantize(self, operation: Quantize) -> Quantize:
        """Return a quantizer whose input is an integer with an odd integer step and an integer offset, and any other as it is.

        The layer behind it makes up for the change of step, and fewer codes where steps are wider leave the clip where it was.
        """
        source = operation.inputs[0]
        previous = self.structure.operations[source]
        step, qmax = operation.step, operation.qmax
        if isinstance(previous, Activate) and previous.inputs[0] in self.units:
            source = previous.inputs[0]
            if previous.function == "relu6":
                qmax = min(qmax, round(6 / float(step.detach())))
            step = _value_step(operation, previous.function)
        if source not in self.units:
            return operation
        real = step * self.units[source]
        step = odd_step(real)
        qmax = min(qmax, ceil(qmax * float((real / step).detach())))
        self.widened[operation.name] = step / real
        offset = rounded((operation.offset - self.origin.get(source, 0.0)) * torch.as_tensor(self.units[source]))
        if abs(float(torch.as_tensor(offset).detach())) + float(step.detach()) * qmax > LARGEST_REACH:
            raise FloatingPointError(
                f"{operation.name}: its range begins too far from 0, or adds up too many positions, for exact codes; leave it "
                "unsnapped, or use smaller images"
            )
        return replace(operation, inputs=(source,), step=step, offset=offset, qmax=qmax)


def _value_step(quantize: Quantize, function: Function | None) -> Tensor:
    """Return a quantizer's step on the value before a linear nonlinearity."""
    return quantize.step / HARD_SIGMOID_SLOPE if function == "hardsigmoid" else quantize.step
