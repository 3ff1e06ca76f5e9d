"""SAWB, Choi et al., SysML 2019, Sec. 3, letter by letter; (c1, c2) as in public codes, at 2 bits for the levels -a, 0, a."""

import torch
from torch import Tensor

C1_C2 = {2: (2.6, -1.71), 3: (7.509, -6.892), 4: (12.68, -12.80), 5: (17.74, -18.64), 8: (31.76, -35.04)}


def alpha_star(w: Tensor, k: int) -> Tensor:
    c1, c2 = C1_C2[k]
    return c1 * torch.sqrt(torch.mean(w**2)) + c2 * torch.mean(w.abs())


def sawb(w: Tensor, k: int) -> Tensor:
    L = 2 ** (k - 1) - 1
    alpha = alpha_star(w, k)
    return torch.round(torch.clamp(w, -alpha, alpha) * L / alpha) * alpha / L
