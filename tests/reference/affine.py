"""Affine quantization, Krishnamoorthi, arXiv:1806.08342, Sec. 2.1 and 2.4, letter by letter."""

import torch
from torch import Tensor


def affine(x: Tensor, x_min: float, x_max: float, lowest: int, highest: int) -> Tensor:
    scale = (x_max - x_min) / (highest - lowest)
    z = min(max(round(lowest - x_min / scale), lowest), highest)
    x_int = torch.round(x / scale) + z
    x_q = torch.clamp(x_int, lowest, highest)
    return (x_q - z) * scale


def affine_gradient(x: Tensor, x_min: float, x_max: float, lowest: int, highest: int, *, g: Tensor) -> Tensor:
    """Return dx: straight through inside the range of the codes, 0 outside."""
    scale = (x_max - x_min) / (highest - lowest)
    z = min(max(round(lowest - x_min / scale), lowest), highest)
    return g * (((lowest - z) * scale <= x) & (x <= (highest - z) * scale))


def moving_average(ranges: list[tuple[float, float]], decay: float) -> tuple[float, float]:
    """Return min and max after some batches; the first sets them. Both include 0."""
    x_min, x_max = min(ranges[0][0], 0.0), max(ranges[0][1], 0.0)
    for low, high in ranges[1:]:
        x_min = decay * x_min + (1 - decay) * min(low, 0.0)
        x_max = decay * x_max + (1 - decay) * max(high, 0.0)
    return x_min, x_max
