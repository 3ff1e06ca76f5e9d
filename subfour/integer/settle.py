"""The last step of snapping: behind h-swish, addends are moved until no accumulator lies near a boundary between two codes.

Such a code is decided by comparing multiplier * acc + addend with the boundaries of `boundaries.py`. Both constants are multiples
of a channel's grid unit, so the value is an integer n = p * acc + b of that unit, exact in float32. The executors that must agree
compute the nonlinearity in float32, each in its own order, so that a band around each boundary is forbidden: `TOLERANCE` of the
magnitudes involved, 8 roundings. The nearest b is taken with which no accumulator in reach falls into a band.

Steps at which h-swish's 0, its value on half of the axis, would lie on a boundary are widened a little.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from subfour.integer.boundaries import boundaries
from subfour.integer.grids import HEADROOM, SMALLEST_MULTIPLIER, channel_grid
from subfour.integer.measure import Snapping
from subfour.integer.program import Layer, Operation, Program, Quantize, Reader, readers

TOLERANCE = 2.0**-21
"""Relative error of a float32 evaluation of a nonlinearity and a quantizer's division, with room."""

WIDENING = 1 + 2.0**-10

DEAD_MULTIPLIER = 2.0**-8

NEAR = 8
"""Addends tried first, on both sides."""

FAR = 400
"""Further ones, ever wider apart."""

Forbidden = NDArray[np.int64]
"""First and last forbidden n of each band that holds an integer, [2, bands]."""


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
        if isinstance(operation, Quantize) and operation.offset:
            operations[name] = _clear_of_zero(operation)
    rounded = Program(operations=tuple(operations.values()), snapped=True)
    for name, operation in operations.items():
        if isinstance(operation, Layer):
            # Integers have odd steps behind them; the logits are read by no quantizer.
            curved = [] if operation.integer else readers(rounded, name)
            settled = _without_dead_channels(operation)
            operations[name] = _settled_layer(settled, curved, snapping.accumulators[name]) if curved else settled
    return Program(operations=tuple(operations.values()), snapped=True)


def _in_float32(operation: Operation) -> Operation:
    """Round a program's constants to what the executors hold; those of layers have few bits and do not change."""
    match operation:
        case Layer():
            constants = {name: getattr(operation, name).float() for name in ("codes", "multiplier", "addend")}
            return replace(operation, **constants)
        case Quantize():
            return replace(operation, step=operation.step.float())
    return operation


def _clear_of_zero(quantize: Quantize) -> Quantize:
    """Widen a step until the value 0 lies clear of the boundaries."""
    while abs((-quantize.offset / float(quantize.step)) % 1 - 0.5) < WIDENING - 1:
        quantize = replace(quantize, step=(quantize.step * WIDENING).float())
    return quantize


def _without_dead_channels(layer: Layer) -> Layer:
    """Give channels scaled by 0 accumulators of 0 instead, because runtimes take no scale of 0."""
    dead = layer.multiplier < SMALLEST_MULTIPLIER
    codes = layer.codes.masked_fill(dead.view(-1, *[1] * (layer.codes.ndim - 1)), 0)
    return replace(layer, codes=codes, multiplier=layer.multiplier.masked_fill(dead, 1.0 if layer.integer else DEAD_MULTIPLIER))


def _settled_layer(layer: Layer, curved: Sequence[Reader], largest_accumulator: int) -> Layer:
    multiplier, addend = layer.multiplier.double(), layer.addend.double()
    unit = channel_grid(multiplier, largest_accumulator)
    p, b = ((values / unit).round().long().cpu().numpy() for values in (multiplier, addend))
    grid, reach = unit.cpu().numpy(), HEADROOM * largest_accumulator
    bands = _bands(curved)
    for channel in range(len(p)):
        first, last = np.ceil(bands[0] / grid[channel]), np.floor(bands[1] / grid[channel])
        forbidden = np.stack([first, last]).astype(np.int64)[:, first <= last]
        found = _nearest_clear(int(p[channel]), int(b[channel]), forbidden, reach)
        if found is None:
            raise ValueError(f"{layer.name}: channel {channel} cannot be kept clear of rounding ties; export with --no-snap")
        p[channel], b[channel] = found
    multiplier, addend = (torch.from_numpy(values * grid).to(layer.multiplier) for values in (p, b))
    return replace(layer, multiplier=multiplier, addend=addend)


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


def _nearest_clear(p: int, b: int, forbidden: Forbidden, reach: int) -> tuple[int, int] | None:
    """Return multiplier and addend nearest to (p, b) with which no accumulator up to `reach` falls into a band."""
    near = np.arange(NEAR + 1)
    far = np.unique(np.geomspace(NEAR + 1, 4 * p * reach, FAR).astype(np.int64))
    for distances in (near, np.concatenate([np.arange(NEAR + 1, p + 1), far])):
        for changed in (p, p + 1, p - 1, p + 2, p - 2) if distances is not near else (p,):
            candidates = np.stack([b + distances, b - distances], axis=1).flatten()
            clear = _clear(changed, candidates, forbidden, reach)
            if clear.any():
                return changed, int(candidates[clear.argmax()])
    return None


def _clear(p: int, candidates: NDArray[np.int64], forbidden: Forbidden, reach: int) -> NDArray[np.bool_]:
    """Return for each addend whether p * acc + addend stays out of all bands for every acc in -reach .. reach."""
    first = np.maximum(-((candidates[:, None] - forbidden[0]) // p), -reach)  # ceil((band - b) / p)
    last = np.minimum((forbidden[1] - candidates[:, None]) // p, reach)
    return ~(first <= last).any(axis=1)  # type: ignore[no-any-return]
