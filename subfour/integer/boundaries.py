"""Where codes change: the values, before the nonlinearity, at which a quantizer goes from one code to the next.

Between code j and j + 1 lies y_j = offset + (j + 1/2) * step on the nonlinearity's output. Its preimage is one value where the
nonlinearity rises; h-swish falls before -3/2 and rises behind it, so that there a y below 0 has two:

    hardswish(v) = (v + 3/2)^2 / 6 - 3/8  on [-3, 3]      v = -3/2 -+ sqrt(6 * (y + 3/8))
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subfour.integer.program import Function, Quantize

Values = NDArray[np.float64]

INFINITY = np.inf


class Boundaries(NamedTuple):
    """Where the code rises and falls by one; infinite where it never does."""

    up: Values
    """[levels - 1], where the code passes j on its way up."""
    down: Values
    """[levels - 1], where it passes j on its way down: finite under h-swish only."""


def boundaries(quantize: Quantize, function: Function | None, *, tolerance: float = 0.0) -> Boundaries:
    """Return where a quantizer's codes change.

    Args:
        quantize: the quantizer.
        function: the nonlinearity before it, if there is one.
        tolerance: moves every y_j by this times abs(y_j) + abs(offset): how far an error of that size moves the boundaries.
    """
    step = float(quantize.step)
    outputs = quantize.offset + (np.arange(quantize.qmin, quantize.qmax) + 0.5) * step
    outputs += tolerance * (np.abs(outputs) + abs(quantize.offset))
    never = np.full_like(outputs, INFINITY)
    match function:
        case None:
            return Boundaries(outputs, never)
        case "relu":
            return Boundaries(np.where(outputs > 0, outputs, -INFINITY), never)
        case "relu6":
            return Boundaries(np.select([outputs <= 0, outputs < 6], [-INFINITY, outputs], INFINITY), never)
        case "hardsigmoid":
            return Boundaries(np.select([outputs <= 0, outputs < 1], [-INFINITY, 6 * outputs - 3], INFINITY), never)
        case "sigmoid":
            inside = np.clip(outputs, 1e-12, 1 - 1e-12)
            logits = np.log(inside / (1 - inside))
            return Boundaries(np.select([outputs <= 0, outputs < 1], [-INFINITY, logits], INFINITY), never)
        case "hardswish":
            root = np.sqrt(6 * np.maximum(outputs + 0.375, 0))
            up = np.select([outputs <= -0.375, outputs < 3], [-INFINITY, root - 1.5], outputs)
            down = np.where((outputs > -0.375) & (outputs <= 0), -1.5 - root, INFINITY)
            return Boundaries(up, down)


def resting_code(quantize: Quantize, function: Function | None) -> int:
    """Return the code far below every boundary: that of the nonlinearity's limit at minus infinity, which is 0."""
    if function is None:
        return quantize.qmin
    return int(np.clip(np.round(-quantize.offset / float(quantize.step)), quantize.qmin, quantize.qmax))
