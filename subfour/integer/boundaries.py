"""Where codes change behind a curved nonlinearity: the values before it at which its quantizer goes from one code to the next.

Between code j and j + 1 lies y_j = offset + (j + 1/2) * step on the nonlinearity's output. Its preimage is one value where the
nonlinearity rises; h-swish falls before -3/2 and rises behind it, so that there a y below 0 has two:

    hardswish(v) = (v + 3/2)^2 / 6 - 3/8  on [-3, 3], and v above      v = -3/2 -+ sqrt(6 * (y + 3/8)), or y
    sigmoid(v)   = 1 / (1 + exp(-v))                                   v = log(y / (1 - y))
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subfour.integer.program import Function, Quantize

Values = NDArray[np.float64]

SIGMOID_FLOOR = 0.5
"""Executors err in a sigmoid by as much near 0 as near 1/2: onnxruntime 1.32 by 1.5e-7 everywhere."""


class Boundaries(NamedTuple):
    """Where the code rises and falls by one; minus infinity where it always has, infinity where it never does."""

    up: Values
    """[levels - 1]"""
    down: Values
    """[levels - 1]; finite under h-swish only."""


def boundaries(quantize: Quantize, function: Function | None, *, tolerance: float = 0.0) -> Boundaries:
    """Return where a quantizer's codes change.

    Args:
        quantize: the quantizer.
        function: the nonlinearity before it, hardswish or sigmoid.
        tolerance: moves every y_j by this times the magnitudes that an executor rounds on the way to its code: y_j, the offset
            and the zero point.
    """
    offset = float(quantize.offset)
    step = float(quantize.step)
    outputs = offset + (np.arange(quantize.qmin, quantize.qmax) + 0.5) * step
    magnitudes = np.abs(outputs) + abs(offset) + step * abs(quantize.qmin)
    outputs += tolerance * (np.maximum(magnitudes, SIGMOID_FLOOR) if function == "sigmoid" else magnitudes)
    if function == "sigmoid":
        inside = (outputs > 0) & (outputs < 1)
        odds = np.where(inside, outputs, 0.5) / (1 - np.where(inside, outputs, 0.5))
        up = np.select([inside, outputs <= 0], [np.log(odds), -np.inf], np.inf)
        return Boundaries(up, np.full_like(up, np.inf))
    assert function == "hardswish", "snapping merges every other nonlinearity into the clip"
    root = np.sqrt(6 * np.maximum(outputs + 0.375, 0))
    up = np.select([outputs <= -0.375, outputs < 3], [-np.inf, root - 1.5], outputs)
    return Boundaries(up, np.where((outputs > -0.375) & (outputs <= 0), -1.5 - root, np.inf))


def resting_code(quantize: Quantize) -> int:
    """Return the code far below every boundary: that of 0, the limit of both nonlinearities."""
    return int(np.clip(np.round(-float(quantize.offset) / float(quantize.step)), quantize.qmin, quantize.qmax))
