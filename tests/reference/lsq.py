"""LSQ, Esser et al., ICLR 2020, Eq. 1-5, and LSQ+, Bhalgat et al., CVPRW 2020, letter by letter; gradients as printed there."""

import torch
from torch import Tensor


def lsq(v: Tensor, s: Tensor, Qn: int, Qp: int) -> Tensor:
    return torch.round(torch.clamp(v / s, -Qn, Qp)) * s  # Eq. 1, 2


def lsq_gradients(v: Tensor, s: Tensor, Qn: int, Qp: int, *, g: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """Return (dv, ds), Eq. 3 and 5; the gradient of s is scaled by 1 / sqrt(N Qp), Sec. 2.2."""
    u = v / s
    ds = torch.where(u <= -Qn, -float(Qn), torch.where(u >= Qp, float(Qp), torch.round(u) - u))
    return g * ((u > -Qn) & (u < Qp)), (g * ds).sum() / (N * Qp) ** 0.5


def lsq_plus(x: Tensor, s: Tensor, beta: Tensor, p: int) -> Tensor:
    return torch.round(torch.clamp((x - beta) / s, 0, p)) * s + beta


def lsq_plus_gradients(x: Tensor, s: Tensor, beta: Tensor, p: int, *, g: Tensor, N: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dx, ds, dbeta)."""
    dx, ds = lsq_gradients(x - beta, s, 0, p, g=g, N=N)
    outside = ((x - beta) / s <= 0) | ((x - beta) / s >= p)
    return dx, ds, (g * outside).sum() / (N * p) ** 0.5
