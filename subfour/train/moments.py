"""Mean and variance of a whole from those of its parts: what workers, and parts of a batch, put together."""

from torch import Tensor


def pooled_moments(counts: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and (biased) variance of each channel over all parts, [C].

    Args:
        counts: of values, [parts, C].
        means: [parts, C].
        variances: biased, [parts, C].
    """
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    return mean, (counts * (variances + (means - mean).square())).sum(0) / total
