"""DuQ that leaves no code unused: a learned offset for linear bottlenecks, and weights down to the code -2^(n-1).

Ours. DuQ's signed domain is symmetric, -L .. L with L = 2^(n-1) - 1: 2^n - 1 codes, three of four at 2 bits. Here

    linear bottlenecks    value = c * round(L * clip((x - b) / a, 0, 1)) / L + b           L = 2^n - 1, b learned
    weights               value = c * round(L * clip(w / a, -(L + 1) / L, 1)) / L          L = 2^(n-1) - 1

with a = s(input_range_raw) and c = s(output_range_raw) as in `duq.py`; ReLU and h-swish outputs are quantized as there. The
offset is LSQ+'s (`lsq_plus.py`), and a, b and c start at its least squared error with a = c, at every width. In the one form:
pre_scale = a / L, scale = c / L, offset = b.
"""

import torch
from torch import Tensor, nn

from subfour.ops import IntegerGrid, QuantParams
from subfour.quantizers.base import Domain
from subfour.quantizers.duq import DuQ, DuQWeight
from subfour.quantizers.lsq_plus import least_squares_start


class DuQOffset(DuQ):
    """DuQ for activations, with a learned offset in the signed domain."""

    def __init__(self, domain: Domain) -> None:
        """Make an uncalibrated quantizer.

        Args:
            domain: the values it will meet; "signed" gets an offset.
        """
        super().__init__(domain)
        self.shift = nn.Parameter(torch.tensor(float("nan"))) if domain == "signed" else None

    @property
    def grid(self) -> IntegerGrid:
        """Codes at the present width: 0 is that of the offset."""
        return IntegerGrid.unsigned(self.bits)

    @property
    def offset(self) -> float:
        """The learned offset; before it has a value, 0."""
        if self.shift is None:
            return super().offset
        return self.shift.item() if self.initialized else 0.0

    def params(self) -> QuantParams:
        """See the head of this file for the equation."""
        highest = self.grid.qmax
        offset = super().offset if self.shift is None else self.shift
        return QuantParams(self.grid, self.input_range / highest, self.output_range / highest, offset)

    def fit(self, samples: Tensor) -> None:
        """Set the ranges, and the offset where there is one, for the samples at the present width.

        Raises:
            ValueError: every value is 0, or none is positive where there is no offset.
        """
        if self.shift is None:
            super().fit(samples)
            return
        step, shift = least_squares_start(samples, self.domain, self.grid.qmax, shifted=True)
        self.shift.copy_(shift)
        self.set_ranges(step * self.grid.qmax)


class DuQOffsetWeight(DuQWeight):
    """DuQ for weights on all 2^n codes."""

    @property
    def grid(self) -> IntegerGrid:
        """Codes at the present width."""
        return IntegerGrid.signed(self.bits)
