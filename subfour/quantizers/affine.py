"""Affine quantization between a minimum and a maximum, with an integer zero point; nothing is learned.

Source: Krishnamoorthi, arXiv:1806.08342, Sec. 2.1 and 3.2; Jacob et al., CVPR 2018, arXiv:1712.05877, Sec. 3.

    scale      = (max - min) / (qmax - qmin)               min <= 0 <= max, so that 0 has a code
    zero_point = clip(round(qmin - min / scale))
    code       = clip(round(x / scale) + zero_point)       value = scale * (code - zero_point)

The gradient passes straight through inside the range. Activations: min and max are running means (EMA) of those of each
training batch; weights: those of the weights themselves, at every step. In evaluation mode the ranges are those of the last
training step, so that they are part of the state. Padding is with 0, the value of code zero_point.

Decay of the mean 0.99 (torch.ao's default; 0.999 in TensorFlow remembers more steps than our phases have). At 2 and 3 bits
nothing is fitted: a range that does not run from minimum to maximum is another method. Asymmetric for weights too, per layer.
"""

import torch
from torch import Tensor

from subfour import collective
from subfour.ops import IntegerGrid, QuantParams
from subfour.quantizers.base import SMALLEST_RANGE, Domain, Quantizer

DECAY = 0.99
"""Of the running minimum and maximum, per training step."""

NOT_FINITE = "samples: no range can be set from a value that is not finite"


class Affine(Quantizer):
    """Affine quantization of activations."""

    minimum: Tensor
    maximum: Tensor

    def __init__(self, domain: Domain) -> None:
        """Make an uncalibrated quantizer.

        Args:
            domain: the values it will meet; the formula is one for all.
        """
        super().__init__(domain)
        self.register_buffer("minimum", torch.tensor(float("nan")))
        self.register_buffer("maximum", torch.tensor(float("nan")))

    @property
    def grid(self) -> IntegerGrid:
        """Codes at the present width."""
        return IntegerGrid.unsigned(self.bits)

    def params(self) -> QuantParams:
        """See the head of this file for the equation."""
        grid = self.grid
        scale = (self.maximum - self.minimum) / (grid.num_levels - 1) + SMALLEST_RANGE
        zero_point = (grid.qmin - self.minimum / scale).round().clamp(grid.qmin, grid.qmax)
        return QuantParams(grid, scale, scale, zero_point=int(zero_point))

    def quantized(self, values: Tensor) -> Tensor:
        """Quantize with the range as it is after these values."""
        if self.training:
            self._follow(values.detach())
        return super().quantized(values)

    @torch.no_grad()
    def _follow(self, values: Tensor) -> None:
        """Move the range towards that of a batch, of all workers.

        Raises:
            FloatingPointError: a value is not finite.
        """
        ends = collective.smallest(torch.stack([values.min(), -values.max()]))
        if not bool(ends.isfinite().all()):
            raise FloatingPointError(NOT_FINITE)
        minimum, below_maximum = ends
        self.minimum.lerp_(minimum.clamp(max=0), 1 - DECAY)
        self.maximum.lerp_((-below_maximum).clamp(min=0), 1 - DECAY)

    def fit(self, samples: Tensor) -> None:
        """Set the range to that of the samples.

        Raises:
            ValueError: every value is 0, or one is not finite.
        """
        if not samples.any():
            raise ValueError("samples: no value to set a range from; are they all zero?")
        minimum, maximum = samples.min().clamp(max=0), samples.max().clamp(min=0)
        if not (minimum.isfinite() and maximum.isfinite()):
            raise ValueError(NOT_FINITE)
        self.minimum.copy_(minimum)
        self.maximum.copy_(maximum)


class AffineWeight(Affine):
    """Affine quantization of one weight tensor."""

    def __init__(self) -> None:
        """Make an uncalibrated weight quantizer."""
        super().__init__("signed")

    @property
    def grid(self) -> IntegerGrid:
        """Codes at the present width, both signs."""
        return IntegerGrid.signed(self.bits)

    def _follow(self, values: Tensor) -> None:
        self.refit(values)
