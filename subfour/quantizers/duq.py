"""DuQ, differentiable and unified quantization: a learned input range and a learned output range.

Source: PROFIT, arXiv:2008.04693; the authors' quant_op/duq.py. With L levels above zero and softplus s(.),

    a = s(input_range_raw)      c = s(output_range_raw)
    value = c * round(L * clip((x + b) / a, low, 1)) / L + d

    domain     codes          L              b      d      low
    unsigned   0 .. L         2^n - 1        0      0      0       ReLU, ReLU6
    hswish     0 .. L         2^n - 1        3/8   -3/8    0       code 0 is exactly -3/8
    signed    -L .. L         2^(n-1) - 1    0      0     -1       linear bottlenecks, weights

so in the one form pre_scale = a / L, scale = c / L, offset = d. Softplus keeps a range positive whatever the optimizer
does. Differs from the authors' code: the inverse of softplus does not overflow; calibration sees |x| and x + 3/8 where it
should; below 4 bits ranges start where the squared error is least (0.9 max|w| sets most 2-bit codes to 0, and the percentile
spends few levels where most activations are), those of weights anew at each width, and those of activations can from 4 bits up.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.ops import IntegerGrid, QuantParams
from subfour.quantizers.base import (
    FITTED_BELOW_BITS,
    HSWISH_MINIMUM,
    SMALLEST_RANGE,
    Domain,
    Quantizer,
    fitted_sample,
    positive_percentile,
    shared_dims,
)

WEIGHT_RANGE_SHARE = 0.9
"""Initial weight range over max|w| (authors' code)."""


class DuQ(Quantizer):
    """DuQ for activations: ranges from a percentile of what arrives, or from a least-squares fit to it."""

    def __init__(self, domain: Domain, range_shape: Sequence[int] = ()) -> None:
        """Make an uncalibrated quantizer.

        Args:
            domain: the values it will meet.
            range_shape: of each range; it broadcasts against the values.
        """
        super().__init__(domain)
        self.input_range_raw = nn.Parameter(torch.full(range_shape, float("nan")))
        self.output_range_raw = nn.Parameter(torch.full(range_shape, float("nan")))

    @property
    def input_range(self) -> Tensor:
        """The range a, positive also where softplus underflows to 0 (raw below -104): values beyond it are clipped."""
        return F.softplus(self.input_range_raw) + SMALLEST_RANGE

    @property
    def output_range(self) -> Tensor:
        """The range c, positive: the value of the largest code, less the offset."""
        return F.softplus(self.output_range_raw)

    @property
    def offset(self) -> float:
        """-3/8 for h-swish outputs, else 0."""
        return HSWISH_MINIMUM if self.domain == "hswish" else 0.0

    def params(self) -> QuantParams:
        """See the head of this file for the equation."""
        grid = self.grid
        return QuantParams(grid, self.input_range / grid.qmax, self.output_range / grid.qmax, self.offset)

    def fit(self, samples: Tensor) -> None:
        """Set the ranges for the samples at the present width.

        `start` says how: a = c = the 95th percentile of the positive part (authors), or, as always below 4 bits, the pair with
        the least |x - Q(x)|^2 over a part of the samples. Where these are so sparse that none is positive, nothing is fitted.

        Raises:
            ValueError: nothing is positive.
        """
        percentile = positive_percentile(samples, self.domain)
        kept = fitted_sample(samples) - self.offset
        # Not that of all samples: one far beyond the rest would leave hardly a range to try that fits the rest.
        largest = kept.abs().amax(0, keepdim=True)
        fitted = self.start == "least-squares" or self.bits < FITTED_BELOW_BITS
        if fitted and (kept.abs() if self.domain == "signed" else kept).gt(0).any():
            self._fit_pair(kept, largest, (0,))
        else:
            self.set_ranges(percentile)

    def _fit_pair(self, values: Tensor, largest: Tensor, dims: tuple[int, ...]) -> None:
        """Set the ranges to the least-squares fit of `values` over `dims`, a up to `largest`."""
        shape = self.input_range_raw.shape
        self.set_ranges(*(found.reshape(shape) for found in _least_squares_ranges(values, self.grid, largest, dims)))

    @torch.no_grad()
    def set_ranges(self, input_range: Tensor, output_range: Tensor | None = None) -> None:
        """Set the ranges in place.

        Args:
            input_range: a, positive.
            output_range: c, positive; a if left out.

        Raises:
            ValueError: a range is not positive and finite.
        """
        output_range = input_range if output_range is None else output_range
        for name, value in (("input_range", input_range), ("output_range", output_range)):
            if wrong := [number for number in value.flatten().tolist() if not 0 < number < math.inf]:
                raise ValueError(f"{name}: {wrong[0]} is not a positive finite number")
        self.input_range_raw.copy_(softplus_inverse(input_range))
        self.output_range_raw.copy_(softplus_inverse(output_range))
        self.initialized = True


class DuQStack:
    """Quantizers with single ranges and fixed widths, whose constants come from a few operations on all of them.

    A network has a hundred, and an operation on one number costs as much as one on a hundred.
    """

    def __init__(self, quantizers: Sequence[DuQ]) -> None:
        """Take the quantizers in some order.

        Args:
            quantizers: calibrated; the values of their parameters are read anew by each `params`.
        """
        self._inputs: list[Tensor] = [quantizer.input_range_raw for quantizer in quantizers]
        self._outputs: list[Tensor] = [quantizer.output_range_raw for quantizer in quantizers]
        self._fixed = [(quantizer.grid, quantizer.offset) for quantizer in quantizers]
        self._largest = torch.tensor([float(grid.qmax) for grid, _ in self._fixed], device=self._inputs[0].device)

    def params(self) -> list[QuantParams]:
        """Return the `params()` of each, in their order."""
        pre_scales = ((F.softplus(torch.stack(self._inputs)) + SMALLEST_RANGE) / self._largest).unbind()
        scales = (F.softplus(torch.stack(self._outputs)) / self._largest).unbind()
        constants = zip(self._fixed, pre_scales, scales, strict=True)
        return [QuantParams(grid, pre_scale, scale, offset) for (grid, offset), pre_scale, scale in constants]


class DuQWeight(DuQ):
    """DuQ for one weight tensor, or with ranges for each of its output channels."""

    def __init__(self, range_shape: Sequence[int] = ()) -> None:
        """Make an uncalibrated weight quantizer.

        Args:
            range_shape: () for one pair of ranges; [O, 1, ...] for one per output channel.
        """
        super().__init__("signed", range_shape)

    def fit(self, samples: Tensor) -> None:
        """Set the ranges for this weight tensor at the present width.

        From 4 bits up a = c = 0.9 max|w| (authors). Below, the pair with the least |w - Q(w)|^2 over a grid of a. A
        channel without a weight that is not 0 gets the largest range of all.
        """
        dims = shared_dims(samples, self.input_range_raw)
        largest = samples.abs().amax(dims, keepdim=True)
        largest = torch.where(largest > 0, largest, largest.max())
        if self.bits < FITTED_BELOW_BITS:
            self._fit_pair(samples, largest, dims)
        else:
            self.set_ranges((WEIGHT_RANGE_SHARE * largest).reshape(self.input_range_raw.shape))


def _least_squares_ranges(values: Tensor, grid: IntegerGrid, largest: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return (a, c) with the least |x - Q(x)|^2 over `dims`: a from a grid of 100, c in closed form for each a."""
    best_error, best_input, best_output = torch.full_like(largest, math.inf), largest, largest
    for share in torch.linspace(0.01, 1.0, 100):
        input_range = share * largest
        codes = (values * (grid.qmax / input_range)).clamp(grid.qmin, grid.qmax).round()
        scale = (values * codes).sum(dims, keepdim=True) / codes.square().sum(dims, keepdim=True)
        error = (values - scale * codes).square().sum(dims, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_input = torch.where(better, input_range, best_input)
        best_output = torch.where(better, scale * grid.qmax, best_output)
    return best_input, best_output


def softplus_inverse(value: Tensor) -> Tensor:
    """Return r with softplus(r) = value, for any positive value a float can hold.

    log(exp(v) - 1) overflows from 89 up in float32; v + log(1 - exp(-v)) is the same number and does not.
    """
    return value + torch.log(-torch.expm1(-value))
