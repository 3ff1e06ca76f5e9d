"""The last step of snapping: behind h-swish, addends are moved until no accumulator lies near a boundary between two codes.

Such a code is decided by comparing multiplier * acc + addend with the boundaries of `boundaries.py`. Both constants are multiples
of a channel's grid unit, so the value is an integer n = p * acc + b of that unit, exact in float32. The executors that must agree
compute the nonlinearity in float32, each in its own order, so that a band around each boundary is forbidden: `TOLERANCE` of the
magnitudes involved, 8 roundings. The nearest b is taken with which no accumulator that there can be (bounds.py) falls into a
band, at most half a step away or 8 units, whichever is more: where the grid is fine, a code changes by one at most. At 6 and 8
bits multipliers may be so coarse that 8 units are several steps. Where no b will do, p may move by up to 2, which is up to a
quarter of a multiplier of 4 bits. Where there is still none, as at 8 bits and accumulators of 10^5, b stays within a few units,
with as few bands hit as there: nothing fails, and `unclear_channels` counts those channels.

Steps at which h-swish's 0, its value on half of the axis, would lie on a boundary are widened a little.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from subfour.integer.boundaries import boundaries
from subfour.integer.bounds import Reach, accumulator_reach
from subfour.integer.grids import SMALLEST_MULTIPLIER, channel_grid
from subfour.integer.measure import Snapping
from subfour.integer.program import Activate, Layer, Operation, Program, Quantize, Reader, readers

TOLERANCE = 2.0**-21
"""Relative error of a float32 evaluation of a nonlinearity and a quantizer's division, with room."""

WIDENING = 1 + 2.0**-10

DEAD_MULTIPLIER = 2.0**-8

NEAR = 8
"""Addends tried first, on both sides."""

FAR = 400
"""Further ones, ever wider apart, up to half a step where that is more than `NEAR`."""

Forbidden = NDArray[np.int64]
"""First and last forbidden n of each band that holds an integer, [2, bands]."""


@torch.no_grad()
def settle(program: Program, snapping: Snapping) -> Program:
    """Return a snapped program whose constants are final: float32, and clear of every tie.

    Args:
        program: from `snap`, its constants in float64.
        snapping: what it was snapped with.

    Raises:
        ValueError: an accumulator may leave int32; the message names the layer.
    """
    operations = {operation.name: _in_float32(operation) for operation in program.operations}
    for name, operation in operations.items():
        if isinstance(operation, Quantize) and isinstance(operations[operation.inputs[0]], Activate):
            operations[name] = _clear_of_zero(operation)
    rounded = Program(operations=tuple(operations.values()), snapped=True)
    reach = accumulator_reach(rounded)
    for name, operation in operations.items():
        if isinstance(operation, Layer):
            # Integers have odd steps behind them; the logits are read by no quantizer.
            curved = [] if operation.integer else readers(rounded, name)
            settled = _without_dead_channels(operation)
            largest = snapping.accumulators[name]
            operations[name] = _settled_layer(settled, curved, largest, reach[name]) if curved else settled
    return Program(operations=tuple(operations.values()), snapped=True)


def unclear_channels(program: Program, snapping: Snapping) -> dict[str, int]:
    """Return by layer how many channels have accumulators near a boundary, where executors may differ, if any has.

    Args:
        program: from `settle`.
        snapping: what it was snapped with.
    """
    reach = accumulator_reach(program)
    found = {}
    for layer in program.operations:
        if isinstance(layer, Layer) and not layer.integer and (curved := readers(program, layer.name)):
            channels = _channels(layer, curved, snapping.accumulators[layer.name], reach[layer.name])
            found[layer.name] = sum(int(_hits(channel, channel.p, np.array([channel.b]))[0] > 0) for channel in channels)
    return {name: count for name, count in found.items() if count}


def _in_float32(operation: Operation) -> Operation:
    """Round a program's constants to what the executors hold; those of layers have few bits and do not change."""
    match operation:
        case Layer():
            constants = {name: getattr(operation, name).float() for name in ("codes", "multiplier", "addend")}
            return replace(operation, **constants)
        case Quantize():
            return replace(operation, step=operation.step.float(), offset=float(operation.offset))
    return operation


def _clear_of_zero(quantize: Quantize) -> Quantize:
    """Widen a step until the value 0 lies clear of the boundaries."""
    while abs((-float(quantize.offset) / float(quantize.step)) % 1 - 0.5) < WIDENING - 1:
        quantize = replace(quantize, step=(quantize.step * WIDENING).float())
    return quantize


def _without_dead_channels(layer: Layer) -> Layer:
    """Give channels scaled by 0 accumulators of 0 instead, because runtimes take no scale of 0."""
    dead = layer.multiplier < SMALLEST_MULTIPLIER
    codes = layer.codes.masked_fill(dead.view(-1, *[1] * (layer.codes.ndim - 1)), 0)
    return replace(layer, codes=codes, multiplier=layer.multiplier.masked_fill(dead, 1.0 if layer.integer else DEAD_MULTIPLIER))


def _settled_layer(layer: Layer, curved: Sequence[Reader], largest_accumulator: int, reach: Reach) -> Layer:
    channels = _channels(layer, curved, largest_accumulator, reach)
    farthest = min(float(quantize.step) for quantize, _ in curved) / 2
    moved = [_nearest_clear(channel, max(NEAR, int(farthest / channel.unit))) for channel in channels]
    p, b = np.array(moved, dtype=np.float64).T * [channel.unit for channel in channels]
    return replace(layer, multiplier=torch.from_numpy(p).to(layer.multiplier), addend=torch.from_numpy(b).to(layer.addend))


class _Channel(NamedTuple):
    """One channel in integers: value = unit * (p * acc + b)."""

    unit: float
    p: int
    b: int
    forbidden: Forbidden
    lowest: int
    """Smallest accumulator that there can be."""
    highest: int


def _channels(layer: Layer, curved: Sequence[Reader], largest_accumulator: int, reach: Reach) -> list[_Channel]:
    multiplier, addend = layer.multiplier.double(), layer.addend.double()
    unit = channel_grid(multiplier, largest_accumulator)
    p, b = ((values / unit).round().long().tolist() for values in (multiplier, addend))
    bands = _bands(curved)
    ends = (reach.lowest.long().tolist(), reach.highest.long().tolist())
    channels = []
    for grid, multiple, shift, lowest, highest in zip(unit.tolist(), p, b, *ends, strict=True):
        first, last = np.ceil(bands[0] / grid), np.floor(bands[1] / grid)
        forbidden = np.stack([first, last]).astype(np.int64)[:, first <= last]
        channels.append(_Channel(grid, multiple, shift, forbidden, lowest, highest))
    return channels


def _bands(curved: Sequence[Reader]) -> NDArray[np.float64]:
    """Return both ends of the forbidden band around each boundary, [2, bands]."""
    bands = []
    for quantize, function in curved:
        shifted = (boundaries(quantize, function, tolerance=tolerance) for tolerance in (-TOLERANCE, TOLERANCE))
        for one, other in zip(*shifted, strict=True):
            low, high = np.minimum(one, other), np.maximum(one, other)
            reached = np.isfinite(low)
            bands.append(np.stack([low, np.where(np.isfinite(high), high, low)])[:, reached])
    return np.concatenate(bands, axis=1)


def _nearest_clear(channel: _Channel, farthest: int) -> tuple[int, int]:
    """Return multiplier and addend nearest to a channel's with which no accumulator falls into a band, or else few do.

    Args:
        channel: as it was snapped.
        farthest: by how much the addend may change.
    """
    near = np.arange(min(NEAR, farthest) + 1)
    far = np.union1d(near, np.geomspace(1, farthest, FAR).astype(np.int64))
    tried = [(p, far) for p in (channel.p, channel.p + 1, channel.p - 1, channel.p + 2, channel.p - 2) if p > 0]
    best, fewest = (channel.p, channel.b), 1
    for p, distances in [(channel.p, near), *tried]:
        addends = np.stack([channel.b + distances, channel.b - distances], axis=1).flatten()
        hits = _hits(channel, p, addends)
        if distances is near or not hits.min():
            best, fewest = (p, int(addends[hits.argmin()])), int(hits.min())
        if not fewest:
            break
    return best


def _hits(channel: _Channel, p: int, addends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each addend how many bands hold p * acc + addend for some accumulator."""
    first = np.maximum(-((addends[:, None] - channel.forbidden[0]) // p), channel.lowest)  # ceil((band - addend) / p)
    last = np.minimum((channel.forbidden[1] - addends[:, None]) // p, channel.highest)
    hits: NDArray[np.int64] = (first <= last).sum(axis=1)
    return hits
