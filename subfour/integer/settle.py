"""The last step of snapping: addends are moved until no accumulator lies near a boundary between two codes.

A code that is a function of one accumulator is decided by comparing multiplier * acc + addend with the boundaries of
`boundaries.py`. Both constants are multiples of a channel's grid unit, so the value is an integer n = p * acc + b of that unit, and
with respect to a boundary only b mod p matters: every b whose remainder puts some accumulator within the error of a float32
evaluation is forbidden, and the nearest that is left is taken. Steps at which a saturated nonlinearity (h-swish's 0, ReLU6's
6) would lie on a boundary are widened a little.

The executors that must agree compute the nonlinearity in float32, each in its own order: what they may err by is `TOLERANCE`
of the magnitudes involved, 8 roundings.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from subfour.integer.boundaries import boundaries
from subfour.integer.program import Activate, Function, Layer, Operation, Program, Quantize
from subfour.integer.snap import SMALLEST_MULTIPLIER, Snapping, channel_grid

TOLERANCE = 2.0**-21
"""Relative error of a float32 evaluation of a nonlinearity and a quantizer's division, with room."""

SATURATED: dict[Function, tuple[float, ...]] = {"hardswish": (0.0,), "relu6": (6.0,)}
"""Values that a nonlinearity has on a whole interval."""

WIDENING = 1 + 2.0**-10

DEAD_MULTIPLIER = 2.0**-8

Reader = tuple[Quantize, Function | None]
"""A quantizer, and the nonlinearity between it and the layer."""


@torch.no_grad()
def settle(program: Program, snapping: Snapping) -> Program:
    """Return a snapped program whose constants are final: float32, and clear of every tie.

    Args:
        program: from `snap`, its constants in float64.
        snapping: what it was snapped with.

    Raises:
        ValueError: a channel's addend cannot be cleared; the message names the layer.
    """
    operations = {operation.name: _in_float32(operation) for operation in program.operations}
    for name, operation in operations.items():
        if isinstance(operation, Quantize):
            source = operations[operation.inputs[0]]
            function = source.function if isinstance(source, Activate) else None
            operations[name] = _clear_of_saturation(operation, function)
    settled = Program(operations=tuple(operations.values()), snapped=True)
    for name, operation in operations.items():
        if isinstance(operation, Layer) and (readers := code_readers(settled, name)):
            operations[name] = _settled_layer(operation, readers, snapping.accumulators[name])
    return Program(operations=tuple(operations.values()), snapped=True)


def code_readers(program: Program, layer: str) -> list[Reader]:
    """Return the quantizers whose codes are a function of one accumulator of a layer; none for the logits and for skips."""
    readers: list[Reader] = []
    for consumer in program.consumers(layer):
        if isinstance(consumer, Quantize):
            readers.append((consumer, None))
        elif isinstance(consumer, Activate):
            for quantize in program.consumers(consumer.name):
                if isinstance(quantize, Quantize):
                    readers.append((quantize, consumer.function))
    return readers


def _in_float32(operation: Operation) -> Operation:
    """Round a program's constants to what the executors hold; those of layers have few bits and do not change."""
    match operation:
        case Layer():
            return replace(operation, multiplier=operation.multiplier.float(), addend=operation.addend.float())
        case Quantize():
            return replace(operation, step=operation.step.float())
    return operation


def _clear_of_saturation(quantize: Quantize, function: Function | None) -> Quantize:
    values = SATURATED.get(function, ()) if function else ()
    for value in values:
        while True:
            position = (value - quantize.offset) / float(quantize.step)
            if abs(position % 1 - 0.5) > 64 * TOLERANCE * max(position, 1) or not quantize.qmin < position < quantize.qmax:
                break
            quantize = replace(quantize, step=(quantize.step * WIDENING).float())
    return quantize


def _settled_layer(layer: Layer, readers: Sequence[Reader], largest_accumulator: int) -> Layer:
    if layer.integer:  # the steps behind it are odd
        return layer
    multiplier = layer.multiplier.double()
    # A dead channel's accumulator is made 0, and its multiplier one that leaves room for the addend.
    dead = multiplier < SMALLEST_MULTIPLIER
    codes = layer.codes.masked_fill(dead.view(-1, *[1] * (layer.codes.ndim - 1)), 0)
    multiplier = multiplier.masked_fill(dead, DEAD_MULTIPLIER)
    grid = channel_grid(multiplier, largest_accumulator)
    p, b = ((values / grid).round().long().numpy() for values in (multiplier, layer.addend.double()))
    unit = grid.numpy()
    addends = b.copy()
    for channel in range(len(p)):
        forbidden = _forbidden(readers, int(p[channel]), unit[channel])
        if (nearest := _nearest_free(int(b[channel]), forbidden)) is None:
            raise ValueError(f"{layer.name}: channel {channel} cannot be kept clear of rounding ties; export with --no-snap")
        addends[channel] = nearest
    return replace(
        layer,
        codes=codes,
        multiplier=torch.from_numpy(p * unit).float(),
        addend=torch.from_numpy(addends * unit).float(),
    )


def _forbidden(readers: Sequence[Reader], p: int, unit: float) -> NDArray[np.bool_]:
    """Return, for each remainder of b mod p, whether some accumulator would lie too near a boundary."""
    forbidden = np.zeros(p, dtype=bool)
    for quantize, function in readers:
        shifted = zip(*(boundaries(quantize, function, tolerance=sign * TOLERANCE) for sign in (-1, 1)), strict=True)
        for one, other in shifted:
            low, high = np.minimum(one, other), np.maximum(one, other)
            reached = np.isfinite(low)
            low, high = low[reached], np.where(np.isfinite(high), high, low)[reached]
            start, stop = np.ceil(low / unit).astype(int), np.floor(high / unit).astype(int)
            for first, last in zip(start[stop >= start], stop[stop >= start], strict=True):
                forbidden[np.arange(first, min(last, first + p - 1) + 1) % p] = True
    return forbidden


def _nearest_free(b: int, forbidden: NDArray[np.bool_]) -> int | None:
    p = len(forbidden)
    for distance in range(p):
        for candidate in (b + distance, b - distance):
            if not forbidden[candidate % p]:
                return candidate
    return None
