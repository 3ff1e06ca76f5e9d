"""PACT, parameterized clipping activation: one learned clipping level.

Source: Choi et al., arXiv:1805.06085, Eq. 1-3.

    y = clip(x, 0, alpha)        code = round(y * (2^n - 1) / alpha)
    d value / d x = [0 < x < alpha]        d value / d alpha = [x >= alpha]

The rounding error does not reach alpha, unlike in LSQ or DuQ; alpha has weight decay. For signed inputs (linear
bottlenecks, which the paper does not meet) the clip is -alpha .. alpha. An h-swish output loses its negative part: that is
what DuQ is compared with in the supplement's Fig. 2.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from subfour.ops import IntegerGrid, QuantParams, fake_quantize
from subfour.quantizers.base import Domain, Quantizer, fitted_sample, least_squares_share, positive_percentile


class PACT(Quantizer):
    """PACT activations."""

    decays_ranges: ClassVar[bool] = True

    def __init__(self, domain: Domain) -> None:
        """Make an uncalibrated quantizer.

        Args:
            domain: the values it will meet; h-swish outputs are treated as ReLU outputs.
        """
        super().__init__(domain)
        self.alpha = nn.Parameter(torch.tensor(float("nan")))

    def params(self) -> QuantParams:
        """See the head of this file for the equation."""
        grid: IntegerGrid = self.grid
        step = self.alpha / grid.qmax
        return QuantParams(grid, step, step)

    def quantized(self, values: Tensor) -> Tensor:
        """Quantize, with the gradients of the clip alone."""
        low = -self.alpha if self.domain == "signed" else torch.zeros_like(self.alpha)
        clipped = torch.where(values >= self.alpha, self.alpha, torch.where(values <= low, low, values))
        # Adding exactly 0 keeps the value the one form's, bit for bit.
        return self.values(self.codes(values)).detach() + (clipped - clipped.detach())

    def fit(self, samples: Tensor) -> None:
        """Set alpha as `start` says, of which the paper says nothing: to the percentile, or to the least squared error.

        Raises:
            ValueError: nothing is positive.
        """
        domain: Domain = "unsigned" if self.domain == "hswish" else self.domain
        self.alpha.copy_(positive_percentile(samples, domain))
        kept = fitted_sample(samples)
        largest = kept.abs().max() if domain == "signed" else kept.max()
        if self.start == "least-squares" and largest > 0:
            grid = self.grid

            def quantized(share: Tensor) -> Tensor:
                step = share * largest / grid.qmax
                return fake_quantize(kept, QuantParams(grid, step, step))

            self.alpha.copy_(least_squares_share(kept, quantized) * largest)
