"""The grids that snapped constants lie on, as fine as exactness in float32 allows."""

from math import ceil, log2

import torch
from torch import Tensor

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

FINE_MULTIPLIER = 8
"""From here on, rounding an integer multiplier changes it by a sixteenth at most."""

LARGEST_MOVE = 1 / 32
"""Of a quantizer's range, by which rounding a multiplier may move the largest value that calibration saw."""

LARGEST_INTEGER = 2.0 ** (EXACT_BITS - 1)
"""Of values on integer paths."""

TIE_BITS = 21
"""An odd step m leaves a margin of 1 / (2 m); with m * levels up to 2^21 it is 4 times the error of a float32 division, and twice
that of a product with 1 / m. Narrower steps make multipliers coarse: with 2^19 two thirds of the channels of a W8A8 network had
one below 8 (results/LOG.md)."""

LARGEST_REACH = 2.0 ** (TIE_BITS + 1)
"""Of the codes and an offset t below them, abs(t) + m * levels. An executor may compute (n - t) / m as n / m - t / m, and each of
the three roundings errs by a quarter of the margin at most."""

LARGEST_CUT = 1 / 32
"""Of a quantizer's range may be lost to an odd step below its own. The step behind a sum over few positions is a small number at
8 bits: 3 in place of 3.84 would clip a fifth of the range, 5 makes 8-bit codes a third coarser."""

LARGEST_STEP = 3 * 2.0**12
"""OpenVINO 2026.4.1 computes signed codes behind a skip as round(n / m + qmax) in float32. Where it takes the skip's factor into
the ends of the quantizer's range, qmax may come out a last bit larger, and the sum is off by another: two thirds of the margin
at most, at every width and with every factor. With m = 26653 at 7 bits and m = 12349 at 8 it gives other codes
(tests/export/test_ties.py)."""


def channel_grid(multiplier: Tensor, largest_accumulator: int) -> Tensor:
    """Return a power of two per channel: multiples of it, with this accumulator, have exact products in float32.

    Args:
        multiplier: [O], not negative.
        largest_accumulator: magnitude of what it multiplies, as calibration saw it.
    """
    bits = min(max(EXACT_BITS - 1 - ceil(log2(HEADROOM * largest_accumulator)), FEWEST_BITS), MOST_BITS)
    return torch.exp2(torch.floor(torch.log2(multiplier.clamp(min=SMALLEST_MULTIPLIER))) + 1 - bits)


def rounded(values: Tensor) -> Tensor:
    """Round to integers, with a straight-through gradient."""
    return values + (values.round() - values).detach()


def odd_below(value: Tensor) -> Tensor:
    """Return the next odd integer below, at least 1, with a straight-through gradient."""
    return value + ((2 * torch.floor((value - 1) / 2) + 1).clamp(min=1) - value).detach()


def odd_step(value: Tensor) -> Tensor:
    """Return the nearest odd integer that as a step in place of `value` cuts little of the range, straight-through."""
    nearest = (2 * torch.floor(value / 2) + 1).clamp(min=1)
    covering = torch.where(nearest < value * (1 - LARGEST_CUT), nearest + 2, nearest)
    return value + (covering - value).detach()


def largest_step(bits: int) -> float:
    """Return the widest odd step of a quantizer at this width."""
    return min(float(2.0 ** (TIE_BITS - bits)), LARGEST_STEP)
