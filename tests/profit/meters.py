"""Meters of AIWQ, and what an optimizer does meanwhile."""

import torch
from torch import nn

from subfour.layers import quant_layers
from subfour.profit.instability_meter import InstabilityMeter


def meter_of(model: nn.Module, *, decay: float = 0.999, corrected: bool = True, stride: int = 1) -> InstabilityMeter:
    return InstabilityMeter(model, decay=decay, corrected=corrected, stride=stride)


def disturb(model: nn.Module, seed: int, size: float = 0.02) -> None:
    """Move every weight, as a training step would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in quant_layers(model).values():
            layer.weight += size * layer.weight.std() * torch.randn(layer.weight.shape, generator=generator)
