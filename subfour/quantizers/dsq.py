"""DSQ, differentiable soft quantization: a staircase of tanh steps stands in for rounding in the gradient.

Source: Gong et al., ICCV 2019, arXiv:1908.05033, Eq. 3-8. With D = (u - l) / (2^n - 1), i = floor((x - l) / D),
m = l + (i + 1/2) D and k = ln(2 / alpha - 1) / D,

    phi   = tanh(k (x - m)) / tanh(k D / 2)
    value = l + D (i + (sign(phi) + 1) / 2)      forward; l below l, u above u
    value = l + D (i + (phi + 1) / 2)            backward: autograd of this, for x, l, u and alpha

so in the one form pre_scale = scale = D, offset = l. tanh(k D / 2) is 1 - alpha: the smaller alpha, the steeper the steps.

Left open by the paper, or by what we know of it: alpha = sigmoid(alpha_raw) stays between 0 and 1, is taken as 1 - 1e-6 at
most, and starts at 0.2. Activations start between the domain's least value and the percentile that DuQ can start from, or at the
share of their ends with the least squared error; weights between their ends, below 4 bits at such a share. Where x is exactly m
the tie goes to the even code, as everywhere here. The paper has no padding: the border is padded with l, the value of code 0, and
gives l no gradient.
"""

import torch
from torch import Tensor, nn

from subfour.ops import IntegerGrid, QuantParams, fake_quantize
from subfour.quantizers.base import (
    FITTED_BELOW_BITS,
    HSWISH_MINIMUM,
    Domain,
    Quantizer,
    fitted_sample,
    least_squares_share,
    percentile_ends,
)

ALPHA_START = 0.2

LARGEST_ALPHA = 1 - 1e-6

SMALLEST_INTERVAL = 1e-30
"""Added to u - l, which the optimizer may bring to 0: large enough that the inverse of D has a float."""


class DSQ(Quantizer):
    """DSQ for activations."""

    def __init__(self, domain: Domain) -> None:
        """Make an uncalibrated quantizer.

        Args:
            domain: the values it will meet.
        """
        super().__init__(domain)
        self.lower = nn.Parameter(torch.tensor(float("nan")))
        self.upper = nn.Parameter(torch.tensor(float("nan")))
        self.alpha_raw = nn.Parameter(torch.logit(torch.tensor(ALPHA_START)))

    @property
    def grid(self) -> IntegerGrid:
        """Codes at the present width: 0 is that of l."""
        return IntegerGrid.unsigned(self.bits)

    @property
    def offset(self) -> float:
        """The lower end, whichever of l and u that is; before it has a value, the least of the domain."""
        expected = HSWISH_MINIMUM if self.domain == "hswish" else 0.0
        return self._lowest.item() if self.initialized else expected

    @property
    def _lowest(self) -> Tensor:
        """The lower end, also when training has brought the ends past each other."""
        return torch.minimum(self.lower, self.upper)

    @property
    def _interval(self) -> Tensor:
        """D, positive."""
        return ((self.upper - self.lower).abs() + SMALLEST_INTERVAL) / self.grid.qmax

    def params(self) -> QuantParams:
        """See the head of this file for the equation."""
        return QuantParams(self.grid, self._interval, self._interval, self._lowest)

    def quantized(self, values: Tensor) -> Tensor:
        """Quantize, with the gradients of the soft staircase."""
        soft = self._soft(values)
        # Adding exactly 0 keeps the value the one form's, bit for bit.
        return self.values(self.codes(values)).detach() + (soft - soft.detach())

    def _soft(self, values: Tensor) -> Tensor:
        """Return the staircase of tanh steps, in units of D: k D does not depend on D, however small."""
        interval, highest = self._interval, self.grid.qmax
        lower = self._lowest
        clipped = lower + (values - lower).clamp(min=0)
        clipped = torch.minimum(clipped, lower + highest * interval)
        position = (clipped - lower) / interval
        stair = position.detach().floor().clamp(0, highest - 1)
        # The sigmoid is 1 in float32 from 17 on, where the staircase is a line: no step would be left to divide by.
        steepness = torch.log(2 / torch.sigmoid(self.alpha_raw).clamp(max=LARGEST_ALPHA) - 1)
        phi = torch.tanh(steepness * (position - stair - 0.5)) / torch.tanh(steepness / 2)
        return lower + interval * (stair + (phi + 1) / 2)

    def fit(self, samples: Tensor) -> None:
        """Set both ends from the domain's least value and a percentile."""
        self._set_ends(*percentile_ends(samples, self.domain))
        kept = fitted_sample(samples)
        if self.start == "least-squares" and kept.max() > max(self.lower, kept.min()):
            fixed = self.domain != "signed"
            lower = self.lower.detach() if fixed else kept.min()
            self._set_ends(*_least_squares_ends(kept, self.grid, lower, kept.max(), fixed=fixed))

    def _set_ends(self, lower: Tensor, upper: Tensor) -> None:
        self.lower.copy_(lower)
        self.upper.copy_(upper)


class DSQWeight(DSQ):
    """DSQ for one weight tensor."""

    def __init__(self) -> None:
        """Make an uncalibrated weight quantizer."""
        super().__init__("signed")

    def fit(self, samples: Tensor) -> None:
        """Set both ends from the least and the largest weight.

        Raises:
            ValueError: all weights are equal.
        """
        ends = samples.min(), samples.max()
        if not ends[0] < ends[1]:
            raise ValueError("samples: no two weights differ; are they all zero?")
        if self.bits >= FITTED_BELOW_BITS:
            self._set_ends(*ends)
        else:
            self._set_ends(*_least_squares_ends(samples, self.grid, *ends))


def _least_squares_ends(
    values: Tensor, grid: IntegerGrid, lowest: Tensor, largest: Tensor, *, fixed: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the share of the range with the least |x - Q(x)|^2, as its two ends; `fixed`: the lower one stays."""

    def lower(share: Tensor) -> Tensor:
        return lowest if fixed else share * lowest

    def quantized(share: Tensor) -> Tensor:
        interval = share * (largest - lowest) / grid.qmax
        return fake_quantize(values, QuantParams(grid, interval, interval, lower(share)))

    share = least_squares_share(values, quantized)
    return lower(share), lower(share) + share * (largest - lowest)
