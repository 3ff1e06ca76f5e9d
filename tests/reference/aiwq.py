"""AIWQ and the freezing order, method.md Sec. 2 with its small print, number by number in float64."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name)


def outputs(x: Tensor, w: Tensor, *, padding: int, pad_value: float, stride: int = 1, groups: int = 1) -> Tensor:
    """Return o = conv(x, Q(w)), with the layer's own padding."""
    padded = F.pad(x.double(), (padding,) * 4, value=pad_value)
    return F.conv2d(padded, w.double(), stride=stride, groups=groups)


def kl_per_channel(o_new: Tensor, o_old: Tensor) -> list[float]:
    """Return KL of the Gaussian of each channel that is alive in both; s is the unbiased estimate."""
    kl = []
    for channel in range(o_new.shape[1]):
        new, old = o_new[:, channel].double().flatten(), o_old[:, channel].double().flatten()
        m_new, s_new = float(new.mean()), float(torch.std(new))
        m_old, s_old = float(old.mean()), float(torch.std(old))
        if s_new > 0 and s_old > 0:
            kl.append(math.log(s_old / s_new) + (s_new**2 + (m_new - m_old) ** 2) / (2 * s_old**2) - 1 / 2)
    return kl


def sample(o_new: Tensor, o_old: Tensor) -> float | None:
    """Return the mean over the channels that are alive; None where there is none."""
    kl = kl_per_channel(o_new, o_old)
    return sum(kl) / len(kl) if kl else None


def running_mean(samples: list[float | None], decay: float = 0.999, *, corrected: bool = True) -> tuple[float, float]:
    """Return (AIWQ, share of samples dropped): a sample above 1 is dropped; None, no live channel, is no sample."""
    taken = [s for s in samples if s is not None]
    kept = [s for s in taken if s <= 1]
    total = 0.0
    for s in kept:
        total = decay * total + (1 - decay) * s
    mean = total / (1 - decay ** len(kept)) if corrected and kept else total
    return mean, 1 - len(kept) / len(taken)


def freeze_order(aiwq: dict[str, float]) -> list[str]:
    """Return the names, the most unstable first, ties by name."""
    return sorted(aiwq, key=lambda name: (-aiwq[name], name))


def frozen(order: list[str], thirds: int) -> list[str]:
    """Return the first floor(thirds * L / 3) of L layers."""
    return order[: thirds * len(order) // 3]
