"""What every quantizer is: a module that owns its ranges and states them in the one form (`ops/affine.py`).

A quantizer knows neither layers nor training. Its `bits` decide between float (32: the input is returned untouched)
and a grid; its `domain` says which values it was made for.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from subfour.ops import FLOAT_BITS, IntegerGrid, QuantParams, bin_centres, check_bits, dequantize, exact, fake_quantize, quantize

Domain = Literal["unsigned", "hswish", "signed"]
"""Values a quantizer meets: ReLU outputs (>= 0), h-swish outputs (>= -3/8), or both signs (bottlenecks, weights)."""

HSWISH_MINIMUM = -0.375
"""Smallest value of h-swish, x * relu6(x + 3) / 6, reached at x = -1.5."""

SMALLEST_RANGE = 1e-40
"""Added to a range or step that the optimizer may bring to 0; in float32 it changes none from 2^-108 (3.1e-33) up."""

FITTED_BELOW_BITS = 4
"""Widths at which ranges start where the squared error is least, and not from max|w| or, DuQ's, a percentile."""

RangeStart = Literal["least-squares", "percentile"]
"""How activation ranges start: where the squared error is least, or at the 95th percentile."""

FITTED_SAMPLES = 65_536
"""Activations that are enough to fit ranges to by search."""


class Quantizer(nn.Module):
    """Base of all quantizers; a subclass gives `params()` and `fit()`."""

    decays_ranges: ClassVar[bool] = False
    """Whether the paper applies weight decay to the range parameters."""

    uniform: ClassVar[bool] = True
    """Whether its levels are evenly spaced, so that it has `params()`."""

    def __init__(self, domain: Domain) -> None:
        """Make a quantizer that is float until `bits` is set below 32.

        Args:
            domain: the values it will meet.
        """
        super().__init__()
        self.domain: Domain = domain
        self.start: RangeStart = "percentile"
        """Of activation ranges, where the paper leaves it open or an option should decide (`QuantizerPair.takes_start`)."""
        self._bits = FLOAT_BITS
        self.initialized = False

    @property
    def bits(self) -> int:
        """Width in bits, 2..8, or 32 for float."""
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        check_bits(bits, "bits")
        self._bits = bits
        self.initialized = self.has_ranges()

    @property
    def enabled(self) -> bool:
        """Whether values are quantized at all."""
        return self._bits != FLOAT_BITS

    @property
    def needs_ranges(self) -> bool:
        """Whether it quantizes and has no ranges yet."""
        return self.enabled and not self.initialized

    @property
    def offset(self) -> float:
        """Value of the padding, and of code `zero_point`; where it is learned, what is expected until it has a value."""
        return 0.0

    @property
    def grid(self) -> IntegerGrid:
        """Codes at the present width."""
        signed = self.domain == "signed"
        return IntegerGrid.signed_narrow(self.bits) if signed else IntegerGrid.unsigned(self.bits)

    def params(self) -> QuantParams:
        """Return the constants of the one form at the present width, differentiable in the range parameters."""
        raise NotImplementedError

    @torch.no_grad()
    def initialize(self, samples: Tensor) -> None:
        """Set the ranges from values, in place; from now on the quantizer can quantize.

        Args:
            samples: as `fit` takes them.

        Raises:
            ValueError: see `fit`.
        """
        self.fit(samples)
        self.initialized = True

    def fit(self, samples: Tensor) -> None:
        """Set the range parameters for the present width, in place; no gradient is recorded.

        Args:
            samples: values this quantizer will meet, any shape: a sample of several batches, or a whole weight tensor.

        Raises:
            ValueError: no value tells anything about a range (all zero, or of the wrong sign).
        """
        raise NotImplementedError

    def refit(self, values: Tensor) -> None:
        """Set the ranges anew while training, in place, where they are not learned.

        Args:
            values: as `initialize` takes them.

        Raises:
            FloatingPointError: training has left no value that tells anything about a range, or one that is not finite.
        """
        try:
            self.initialize(values)
        except ValueError as error:
            raise FloatingPointError(str(error)) from None

    def has_ranges(self) -> bool:
        """Return whether the ranges are set, for the present width where they belong to one."""
        # Ranges are created as NaN: a state that was calibrated is finite, one saved before calibration is not.
        # One without memory (meta, to count costs) has none.
        return all(not value.is_meta and bool(torch.isfinite(value).all()) for value in self.state_dict().values())

    def codes(self, values: Tensor) -> Tensor:
        """Return the integer codes of values, as float."""
        return quantize(values, self.params())

    def values(self, codes: Tensor) -> Tensor:
        """Return the real values of codes."""
        return dequantize(codes, self.params())

    def bin_centres(self, codes: Tensor) -> Tensor:
        """Return a value for each code that this quantizer maps back to it."""
        return bin_centres(codes, self.params())

    def forward(self, values: Tensor) -> Tensor:
        """Fake-quantize values at the present width.

        Raises:
            RuntimeError: the ranges were never set.
        """
        if not self.enabled:
            return values
        if not self.initialized:
            raise RuntimeError("this quantizer has no ranges yet: calibrate the model, or load a state dict, first")
        return self.quantized(exact(values))

    def quantized(self, values: Tensor) -> Tensor:
        """Fake-quantize with gradients; a subclass whose paper wants other gradients overrides this."""
        return fake_quantize(values, self.params())

    def extra_repr(self) -> str:
        """Show width and domain in the module's repr."""
        return f"bits={self.bits}, domain={self.domain}"

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.initialized = self.has_ranges()


def shared_dims(samples: Tensor, ranges: Tensor) -> tuple[int, ...]:
    """Return the dimensions of the samples over which one range is shared: all, or all but the output channels' (0)."""
    return tuple(range(1 if ranges.numel() > 1 else 0, samples.dim()))


def fitted_sample(samples: Tensor) -> Tensor:
    """Return samples at equal distances, flat: all, or between `FITTED_SAMPLES` and twice as many."""
    return samples.flatten()[:: max(1, samples.numel() // FITTED_SAMPLES)]


def least_squares_share(values: Tensor, quantized: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the share of the largest range, of a hundred, with the least |x - Q(x)|^2.

    Args:
        values: that are to be quantized.
        quantized: from a share, a scalar in 0.01 .. 1, to the quantized values.
    """
    shares = torch.linspace(0.01, 1.0, 100, device=values.device)
    errors = torch.stack([(values - quantized(share)).square().sum() for share in shares])
    return shares[errors.argmin()]


def positive_percentile(samples: Tensor, domain: Domain, percent: float = 95.0) -> Tensor:
    """Return a percentile of the positive part of |x|, x - (-3/8) or x, whichever the domain asks for.

    The authors' calibration (their code asks the type of the wrong object, so the first two never happen there).

    Raises:
        ValueError: nothing is positive.
    """
    if domain == "signed":
        magnitudes = samples.abs()
    elif domain == "hswish":
        magnitudes = samples - HSWISH_MINIMUM
    else:
        magnitudes = samples
    positive = magnitudes[magnitudes > 0]
    if positive.numel() == 0:
        raise ValueError(f"samples: no positive value to set a {domain} range from; are the inputs all zero?")
    return torch.quantile(positive.flatten().float(), percent / 100)


def percentile_ends(samples: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
    """Return the ends of a range: the domain's least value (the other end negated, if it has both signs) and the percentile.

    Raises:
        ValueError: nothing is positive.
    """
    reach = positive_percentile(samples, domain)
    least = {"unsigned": 0.0, "hswish": HSWISH_MINIMUM, "signed": -reach.item()}[domain]
    return torch.full_like(reach, least), reach + (HSWISH_MINIMUM if domain == "hswish" else 0.0)
