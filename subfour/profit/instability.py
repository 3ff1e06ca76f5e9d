"""AIWQ, activation instability induced by weight quantization: how much a weight update moves a layer's output.

Source: PROFIT, arXiv:2008.04693; the authors' train_ts.py. At step t, on the same input x,

    o_new = conv(x, Q(w_t))      o_old = conv(x, Q(w_{t-1}))        with the layer's own padding
    per output channel, a Gaussian (m, s) over batch and positions of both:
    KL = log(s_old / s_new) + (s_new^2 + (m_new - m_old)^2) / (2 s_old^2) - 1/2
    sample = mean of KL over channels with both s > 0;  AIWQ = running mean of the samples (`instability_meter.py`)

Small print: s is the unbiased estimate (torch.std), and is 0 where it is what rounding leaves of a constant. Where no channel is
alive there is no sample: a layer whose output is constant ranks last, because frozen it could never come back to life. A batch
that several workers share, or that comes in parts, gives one sample: the moments of the parts make those of the whole, then the
KL is formed once.
"""

import torch
from torch import Tensor

from subfour.train.moments import pooled_moments

SUMMED = 4096
"""Values of a channel that are added up at once: on CPUs batch norm's reduction is a plain float32 sum, whose error grows with
them. Over a batch of 112x112 maps it was up to 5 % of a sample."""

CONSTANT = 1e-4
"""A deviation of at most so much of the mean is that of a constant in float32."""


def instability(output_new: Tensor, output_old: Tensor) -> float | None:
    """Return one AIWQ sample: the mean over channels of KL(new || old), or None where no channel is alive.

    Args:
        output_new: [N, C, H, W], from the present weights.
        output_old: the same shape, from the weights before the last step.
    """
    (sample,) = samples(moments(output_new, output_old), [output_new.shape[1]])
    return sample


def moments(output_new: Tensor, output_old: Tensor) -> Tensor:
    """Return the number of values, then mean and biased variance of both outputs, of each channel: [5, C] in float64.

    Args:
        output_new: [N, C, H, W].
        output_old: the same shape.
    """
    if output_new.device.type != "cpu":
        return _moments(output_new, output_old)
    return pooled(torch.stack([_moments(*parts) for parts in zip(_split(output_new), _split(output_old), strict=True)]))


def _split(output: Tensor) -> list[Tensor]:
    """Return an output in parts of at most `SUMMED` positions: some images each, or some rows of one."""
    height, width = output.shape[2:]
    rows = min(height, max(1, SUMMED // width))
    images = max(1, SUMMED // (height * width))
    return [part for some in torch.split(output, images) for part in torch.split(some, rows, dim=2)]


def _moments(output_new: Tensor, output_old: Tensor) -> Tensor:
    """Return the moments of one part by the reduction of batch norm: torch.var_mean takes far longer."""
    mean_new, variance_new = torch.ops.aten.batch_norm_update_stats(output_new, None, None, 0.0)
    mean_old, variance_old = torch.ops.aten.batch_norm_update_stats(output_old, None, None, 0.0)
    count = torch.full_like(mean_new, output_new.numel() // len(mean_new))
    return torch.stack([count, mean_new, variance_new, mean_old, variance_old]).double()


def pooled(parts: Tensor) -> Tensor:
    """Return the moments of the whole from those of its parts, [parts, 5, C] -> [5, C]."""
    if len(parts) == 1:
        return parts[0]
    counts, means_new, variances_new, means_old, variances_old = parts.unbind(1)
    new, old = pooled_moments(counts, means_new, variances_new), pooled_moments(counts, means_old, variances_old)
    return torch.stack([counts.sum(0), *new, *old])


def samples(whole: Tensor, channels: list[int]) -> list[float | None]:
    """Return the sample of each layer: the mean KL over its channels alive, or None where there is none.

    Args:
        whole: moments of the channels of all layers, one after the other, [5, C].
        channels: how many of them each layer has; their sum is C.
    """
    count, mean_new, variance_new, mean_old, variance_old = whole.cpu()
    unbiased = count / (count - 1)
    square_new, square_old = variance_new * unbiased, variance_old * unbiased
    # No comparison is true of a single value, whose deviation is 0 / 0.
    alive = (square_new > (CONSTANT * mean_new).square()) & (square_old > (CONSTANT * mean_old).square())
    divergence = ((square_old / square_new).log() + (square_new + (mean_new - mean_old).square()) / square_old - 1) / 2
    divergence = torch.where(alive, divergence, 0.0)
    sums = [float(values.sum()) for values in torch.split(divergence, channels)]
    counts = [int(values.sum()) for values in torch.split(alive, channels)]
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]
