"""LSQ+: LSQ with a learned offset for activations, and with better starts.

Source: Bhalgat et al., CVPR workshops 2020, arXiv:2004.09576, Sec. 3.

    value = s * round(clip((x - beta) / s, 0, 2^n - 1)) + beta
    d value / d beta = 0 inside, 1 outside;   times 1 / sqrt(N * Qp), as LSQ's step
    activations:   s and beta start where the squared error of the samples is least
    weights:       as LSQ, no offset;  s starts at max(|mean - 3 std|, |mean + 3 std|) / 2^(n-1)

The offset is there for h-swish outputs and linear bottlenecks, on the unsigned grid (the best of the paper's four
configurations). ReLU outputs have none, as in the paper: 0 is their commonest value and keeps its code. The paper leaves open
how the squared error is made least: here by turns, codes for the given (s, beta), then (s, beta) by linear regression on
the codes, from several shares of the range. The border is padded with beta, the value of code 0, and gives beta no gradient.
"""

import torch
from torch import Tensor, nn

from subfour.ops import IntegerGrid, QuantParams, fake_quantize
from subfour.quantizers.base import HSWISH_MINIMUM, SMALLEST_RANGE, Domain, fitted_sample, percentile_ends, shared_dims
from subfour.quantizers.lsq import LSQ, LSQWeight, scale_gradient

ROUNDS = 10
"""Of codes and regression, from each start."""


class LSQPlus(LSQ):
    """LSQ+ for activations."""

    def __init__(self, domain: Domain) -> None:
        """Make an uncalibrated quantizer.

        Args:
            domain: the values it will meet; all but ReLU outputs get an offset.
        """
        super().__init__(domain)
        self.beta = nn.Parameter(torch.tensor(float("nan"))) if domain != "unsigned" else None

    @property
    def grid(self) -> IntegerGrid:
        """Codes at the present width: 0 is that of beta."""
        return IntegerGrid.unsigned(self.bits)

    @property
    def offset(self) -> float:
        """Beta; before it has a value, the least of the domain."""
        if self.beta is None:
            return 0.0
        expected = HSWISH_MINIMUM if self.domain == "hswish" else 0.0
        return self.beta.item() if self.initialized else expected

    def params(self) -> QuantParams:
        """See the head of this file for the equation."""
        return self._shifted(self.step, self.beta)

    def _shifted(self, step: Tensor, beta: Tensor | None) -> QuantParams:
        size = step.abs() + SMALLEST_RANGE
        return QuantParams(self.grid, size, size, 0.0 if beta is None else beta)

    def quantized(self, values: Tensor) -> Tensor:
        """Quantize; the gradients of step and offset are scaled."""
        factor = self._gradient_scale(values)
        beta = None if self.beta is None else scale_gradient(self.beta, factor)
        return fake_quantize(values, self._shifted(scale_gradient(self.step, factor), beta))

    def fit(self, samples: Tensor) -> None:
        """Set step and offset to the least squared error.

        Raises:
            ValueError: every value is 0, or none is positive where there is no offset.
        """
        step, beta = least_squares_start(samples, self.domain, self.grid.qmax, shifted=self.beta is not None)
        if self.beta is not None:
            self.beta.copy_(beta)
        self._set_step(step)


class LSQPlusWeight(LSQWeight):
    """LSQ for weights, with the start of LSQ+."""

    def fit(self, samples: Tensor) -> None:
        """Set the step from three standard deviations.

        Raises:
            ValueError: every weight is 0.
        """
        deviation, mean = torch.std_mean(samples, shared_dims(samples, self.step), correction=0)
        reach = torch.maximum((mean - 3 * deviation).abs(), (mean + 3 * deviation).abs())
        self._set_step(reach / 2 ** (self.bits - 1))


def least_squares_start(samples: Tensor, domain: Domain, highest: int, *, shifted: bool) -> tuple[Tensor, Tensor]:
    """Return (step, beta) for a part of the samples; where these are so sparse that the part is all alike, by percentile.

    Args:
        samples: values that are to be quantized, any shape.
        domain: of them.
        highest: the largest code; the smallest is 0.
        shifted: whether there is a beta; else it is 0.

    Raises:
        ValueError: every value is 0, or none is positive where there is no beta.
    """
    kept = fitted_sample(samples)
    if kept.max() > (kept.min() if shifted else 0):
        return _least_squares(kept, highest, shifted=shifted)
    beta, upper = percentile_ends(samples, domain)
    return (upper - beta) / highest, beta


def _least_squares(samples: Tensor, highest: int, *, shifted: bool) -> tuple[Tensor, Tensor]:
    """Return (step, beta) with the least squared error that was found; beta is 0 unless `shifted`."""
    zero = torch.zeros_like(samples[0])
    lowest = samples.min() if shifted else zero
    best_error, best = torch.inf, (zero, zero)
    for share in torch.linspace(0.1, 1.0, 10):
        step, beta = share * (samples.max() - lowest) / highest, share * lowest
        for _ in range(ROUNDS):
            if not step > 0:
                break
            codes = ((samples - beta) / step).clamp(0, highest).round()
            error = (samples - beta - step * codes).square().mean().item()
            if error < best_error:
                best_error, best = error, (step, beta)
            centre, middle = (codes.mean(), samples.mean()) if shifted else (zero, zero)
            spread = (codes - centre).square().mean()
            if not spread > 0:
                break
            step = ((codes - centre) * (samples - middle)).mean() / spread
            beta = middle - step * centre
    return best
