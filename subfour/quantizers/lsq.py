"""LSQ, learned step size quantization: one learned step, whose gradient knows of the rounding error.

Source: Esser et al., ICLR 2020, arXiv:1902.08153, Eq. 1-5.

    value = s * round(clip(x / s, -Qn, Qp))
    d value / d s = round(x / s) - x / s inside, -Qn or Qp outside;   times 1 / sqrt(N * Qp)
    s starts at 2 E|x| / sqrt(Qp)

    domain            codes                        N
    unsigned          0 .. 2^n - 1                 elements of one image's feature map
    hswish            the same
    signed            -2^(n-1) .. 2^(n-1) - 1      the same
    weights           the same                     weights of the layer (of the channel, with a step per channel)

h-swish outputs lose their negative part: LSQ has no offset, and on its signed grid half of the codes would serve 3/8
(LSQ+, whose authors ran LSQ so, is the paper's successor with an offset). A step belongs to one width, so a new width starts
with the paper's own start, from the weights or the batches of then. The paper gives s the rate of the weights
(`range_lr_scale` 1) and lets it decay with them; here ranges do not decay. Where the optimizer crosses 0, |s| is the step.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.ops import IntegerGrid, QuantParams, fake_quantize
from subfour.quantizers.base import SMALLEST_RANGE, Domain, Quantizer, shared_dims


class LSQ(Quantizer):
    """LSQ for activations."""

    step_bits: Tensor
    """The width that the step belongs to."""

    def __init__(self, domain: Domain, range_shape: Sequence[int] = ()) -> None:
        """Make an uncalibrated quantizer.

        Args:
            domain: the values it will meet.
            range_shape: of the step; it broadcasts against the values.
        """
        super().__init__(domain)
        self.step = nn.Parameter(torch.full(range_shape, float("nan")))
        self.register_buffer("step_bits", torch.tensor(0))

    @property
    def grid(self) -> IntegerGrid:
        """Codes at the present width."""
        return IntegerGrid.signed(self.bits) if self.domain == "signed" else IntegerGrid.unsigned(self.bits)

    def has_ranges(self) -> bool:
        """Return whether there is a step, and it is of the present width."""
        return super().has_ranges() and (not self.enabled or int(self.step_bits) == self.bits)

    def params(self) -> QuantParams:
        """See the head of this file for the equation."""
        return self._with_step(self.step)

    def _with_step(self, step: Tensor) -> QuantParams:
        size = step.abs() + SMALLEST_RANGE
        return QuantParams(self.grid, size, size)

    def quantized(self, values: Tensor) -> Tensor:
        """Quantize; the step's gradient is scaled."""
        return fake_quantize(values, self._with_step(scale_gradient(self.step, self._gradient_scale(values))))

    def _gradient_scale(self, values: Tensor) -> float:
        """Return 1 / sqrt(N * Qp)."""
        return 1 / math.sqrt(values[0].numel() * self.grid.qmax)

    def fit(self, samples: Tensor) -> None:
        """Set the step from the mean of |x|.

        Raises:
            ValueError: every value is 0, or clipped to it.
        """
        kept = samples if self.domain == "signed" else F.relu(samples)
        self._set_step(2 * kept.abs().mean(shared_dims(kept, self.step)) / math.sqrt(self.grid.qmax))

    @torch.no_grad()
    def _set_step(self, step: Tensor) -> None:
        """Set the step of every range; where there is nothing to quantize, to the largest of all."""
        if not step.max() > 0:
            raise ValueError(f"samples: no value to set a {self.domain} step from; are the inputs all zero?")
        self.step.copy_(torch.where(step > 0, step, step.max()).reshape(self.step.shape))
        self.step_bits.fill_(self.bits)


class LSQWeight(LSQ):
    """LSQ for one weight tensor, or with a step for each of its output channels."""

    def __init__(self, range_shape: Sequence[int] = ()) -> None:
        """Make an uncalibrated weight quantizer.

        Args:
            range_shape: () for one step; [O, 1, ...] for one per output channel.
        """
        super().__init__("signed", range_shape)

    def _gradient_scale(self, values: Tensor) -> float:
        return 1 / math.sqrt(values.numel() / self.step.numel() * self.grid.qmax)


def scale_gradient(value: Tensor, factor: float) -> Tensor:
    """Return a value, bit for bit, whose gradient is multiplied by a factor."""
    scaled = value * factor
    return value.detach() + (scaled - scaled.detach())
