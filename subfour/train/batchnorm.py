"""Batch-norm statistics computed anew (precise batch norm).

The running statistics of training lag behind the weights; averaged and quantized weights suffer most. Here they become the
plain mean over several training batches, with everything else fixed.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.modes import evaluation_mode


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> None:
    """Replace every batch norm's running mean and variance by their mean over the given batches, in place.

    Only batch norms run in training mode, so dropout stays off. Momentum and modes are restored.

    Args:
        model: with or without batch norms.
        batches: training images [N, 3, H, W] and labels, which are not used.
        device: where the model lies.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    try:
        with evaluation_mode(model):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative mean over the batches
                norm.training = True
            for images, _ in batches:
                model(images.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
