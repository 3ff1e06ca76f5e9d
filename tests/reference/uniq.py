"""UNIQ, Baskin et al., arXiv:1804.10969, Sec. 3, letter by letter, with the normal distribution of the standard library."""

from statistics import NormalDist

import torch
from torch import Tensor


def uniq_inference(w: Tensor, mu: float, sigma: float, k: int) -> Tensor:
    normal = NormalDist(mu, sigma)
    bins = [min(int(normal.cdf(value) * k), k - 1) for value in w.flatten().tolist()]
    return torch.tensor([normal.inv_cdf((i + 0.5) / k) for i in bins], dtype=w.dtype).reshape(w.shape)


def uniq_training(w: Tensor, mu: float, sigma: float, k: int, e: Tensor) -> Tensor:
    """Return the weights under the noise e, uniform in -1/2k .. 1/2k; the clip to the outermost levels is ours."""
    normal = NormalDist(mu, sigma)
    u = [normal.cdf(value) + noise for value, noise in zip(w.flatten().tolist(), e.flatten().tolist(), strict=True)]
    return torch.tensor([normal.inv_cdf(min(max(v, 0.5 / k), 1 - 0.5 / k)) for v in u], dtype=w.dtype).reshape(w.shape)
