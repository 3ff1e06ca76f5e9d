"""SAWB, statistics-aware weight binning: the clip follows from two moments of the weights, nothing is learned.

Source: Choi et al., "Accurate and Efficient 2-bit Quantized Neural Networks", SysML 2019, Sec. 3.

    alpha = c1 * sqrt(E[w^2]) + c2 * E|w|        at every step, (c1, c2) fitted per width on six distributions

The coefficients are those of public codes; 6 and 7 bits were never published and are refused. Every grid here has a zero, so
at 2 bits they are those for the levels {-a, 0, a} (fms-model-optimizer, code 103). The pair seen more often, (3.12, -2.064),
is for {-a, -a/3, a/3, a}: on three levels it sets more than half of a MobileNet's weights to 0, with a tenth more error. On
flatter weights than those six distributions the fit falls to zero and below it (8 bits: where the root mean square is under
1.103 E|w|), so alpha is E|w| at least, the best clip of weights of one magnitude. In evaluation mode alpha is the one of the
last training step, so that it is part of the state.
"""

import torch
from torch import Tensor

from subfour.ops import QuantParams
from subfour.quantizers.base import Quantizer

COEFFICIENTS = {2: (2.6, -1.71), 3: (7.509, -6.892), 4: (12.68, -12.80), 5: (17.74, -18.64), 8: (31.76, -35.04)}
"""Width -> (c1, c2)."""


class SAWB(Quantizer):
    """SAWB for one weight tensor (per layer)."""

    alpha: Tensor

    def __init__(self) -> None:
        """Make a weight quantizer whose clip is not yet known."""
        super().__init__("signed")
        self.register_buffer("alpha", torch.tensor(float("nan")))

    def params(self) -> QuantParams:
        """See the head of this file for the equation."""
        grid = self.grid
        step = self.alpha / grid.qmax
        return QuantParams(grid, step, step)

    def quantized(self, values: Tensor) -> Tensor:
        """Quantize with the clip of these very weights."""
        if self.training:
            self._check_width()
            self.refit(values)
        return super().quantized(values)

    def fit(self, samples: Tensor) -> None:
        """Compute alpha from the weights at the present width.

        Raises:
            ValueError: the width has no published coefficients, or the weights are all zero or not finite.
        """
        self._check_width()
        c1, c2 = COEFFICIENTS[self.bits]
        magnitude = samples.abs().mean()
        alpha = torch.maximum(c1 * samples.square().mean().sqrt() + c2 * magnitude, magnitude)
        if not (alpha > 0 and alpha.isfinite()):
            raise ValueError(f"weight: SAWB's clip is {alpha:.3g} at {self.bits} bits; are all zero, or is one not finite?")
        self.alpha.copy_(alpha)

    def _check_width(self) -> None:
        if self.bits not in COEFFICIENTS:
            raise ValueError(f"weight_bits: SAWB has no coefficients for {self.bits} bits; choose from {[*COEFFICIENTS]}")
