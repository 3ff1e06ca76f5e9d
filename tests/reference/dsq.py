"""DSQ, Gong et al., ICCV 2019, Eq. 3-8, letter by letter; the gradients are autograd's of the soft function."""

import torch
from torch import Tensor


def dsq(x: Tensor, l: Tensor, u: Tensor, alpha: Tensor, b: int) -> tuple[Tensor, Tensor]:  # noqa: E741
    """Return (forward, backward): the staircase, and the soft function whose gradients it gets."""
    Delta = (u - l) / (2**b - 1)
    i = torch.floor((x - l) / Delta).detach()
    m = l + (i + 0.5) * Delta
    k = torch.log(2 / alpha - 1) / Delta
    phi = torch.tanh(k * (x - m)) / torch.tanh(0.5 * k * Delta)

    def clipped(inside: Tensor) -> Tensor:
        return torch.where(x < l, l, torch.where(x > u, u, inside))

    return clipped(l + Delta * (i + (torch.sign(phi) + 1) / 2)), clipped(l + Delta * (i + (phi + 1) / 2))
