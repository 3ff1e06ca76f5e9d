"""PACT, Choi et al., arXiv:1805.06085, Eq. 1-3, letter by letter."""

import torch
from torch import Tensor


def pact(x: Tensor, alpha: Tensor, k: int) -> Tensor:
    y = 0.5 * (x.abs() - (x - alpha).abs() + alpha)  # Eq. 1
    return torch.round(y * (2**k - 1) / alpha) * alpha / (2**k - 1)  # Eq. 2


def pact_signed(x: Tensor, alpha: Tensor, k: int) -> Tensor:
    """Ours: the clip of a linear bottleneck is -alpha .. alpha, on codes -L .. L."""
    L = 2 ** (k - 1) - 1
    y = 0.5 * ((x + alpha).abs() - (x - alpha).abs())
    return torch.round(y * L / alpha) * alpha / L


def pact_gradients(x: Tensor, alpha: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return (dx, dalpha): dy_q/dalpha is 1 from alpha up and 0 below, Eq. 3."""
    return g * ((x > 0) & (x < alpha)), (g * (x >= alpha)).sum()


def pact_signed_gradients(x: Tensor, alpha: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    return g * ((x > -alpha) & (x < alpha)), (g * (x >= alpha)).sum() - (g * (x <= -alpha)).sum()
