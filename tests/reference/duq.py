"""DuQ, PROFIT (arXiv:2008.04693) Sec. 4 and the authors' duq.py, letter by letter; gradients are autograd's.

c * round(L * clip((x + b) / a, low, 1)) / L + d
"""

import torch
from torch import Tensor


def round_ste(v: Tensor) -> Tensor:
    """Ties to even forward, the identity backward."""
    return v + (v.round() - v).detach()


def duq(x: Tensor, a: Tensor, c: Tensor, n: int, use: str) -> Tensor:
    if use == "unsigned":
        L = 2**n - 1
        return c * round_ste(L * torch.clamp(x / a, 0, 1)) / L
    if use == "hswish":
        b, d = 3 / 8, -3 / 8
        L = 2**n - 1
        return c * round_ste(L * torch.clamp((x + b) / a, 0, 1)) / L + d
    L = 2 ** (n - 1) - 1
    return c * round_ste(L * torch.clamp(x / a, -1, 1)) / L


def duq_offset(x: Tensor, a: Tensor, c: Tensor, b: Tensor, n: int) -> Tensor:
    L = 2**n - 1
    return c * round_ste(L * torch.clamp((x - b) / a, 0, 1)) / L + b


def duq_all_codes(w: Tensor, a: Tensor, c: Tensor, n: int) -> Tensor:
    L = 2 ** (n - 1) - 1
    return c * round_ste(L * torch.clamp(w / a, -(L + 1) / L, 1)) / L


def softplus(r: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-r.abs())) + torch.clamp(r, min=0)
