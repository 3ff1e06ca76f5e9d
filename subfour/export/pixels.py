"""The first codes of a file: a table of 3 x 256 entries as a line per channel, where float32 hits every entry.

An image's code is round(line(pixel)) by construction (quantizers/image.py), but the line's own constants are not in the table,
and any line that gives all its entries will do. The best is the one with the least distance to the entries at the worst pixel:
half a step less that distance is the room for an executor's float32 errors.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SMALLEST_MARGIN = 2.0**-12
"""In code steps: 16 times what float32 errs at code 128, in whatever way an executor computes a line and rounds."""

ROUNDS = 100
"""Each leaves two thirds of the interval that holds a slope: at the end it is narrower than float64 can tell."""


class Lines(NamedTuple):
    """Codes of channel c are round(slope[c] * pixel + intercept[c])."""

    slope: NDArray[np.float32]
    intercept: NDArray[np.float32]


def lines_of(table: NDArray[np.int64]) -> Lines | None:
    """Return lines that give a table's codes with room to spare, or None where there are none.

    >>> pixels = np.arange(256)
    >>> lines_of(np.stack([np.rint(0.5 * pixels - 63.3).astype(int)] * 3)).slope.round(2).tolist()
    [0.5, 0.5, 0.5]
    >>> lines_of(np.stack([np.minimum(pixels, 100)] * 3)) is None
    True

    Args:
        table: [3, 256].
    """
    fits = [_best_line(codes) for codes in table]
    lines = Lines(*(np.array(values, dtype=np.float32) for values in zip(*fits, strict=True)))
    pixels = np.arange(table.shape[1])
    exact = lines.slope.astype(np.float64)[:, None] * pixels + lines.intercept.astype(np.float64)[:, None]
    return lines if np.abs(exact - table).max() <= 0.5 - SMALLEST_MARGIN else None


def _best_line(codes: NDArray[np.int64]) -> tuple[float, float]:
    """Return slope and intercept of the line whose largest distance to the codes is least.

    With the best intercept, that distance is half the spread of codes - slope * pixel, convex in the slope.
    """
    pixels = np.arange(len(codes))

    def spread(slope: float) -> float:
        return float(np.ptp(codes - slope * pixels))

    overall = float(codes[-1] - codes[0]) / (len(codes) - 1)
    low, high = overall - 1, overall + 1
    for _ in range(ROUNDS):
        third = (high - low) / 3
        if spread(low + third) < spread(high - third):
            high -= third
        else:
            low += third
    slope = (low + high) / 2
    rest = codes - slope * pixels
    return slope, float(rest.max() + rest.min()) / 2
