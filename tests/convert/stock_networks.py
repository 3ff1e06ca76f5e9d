"""The networks that conversion must handle, and small images for them."""

import copy
import functools
from fnmatch import fnmatch

import timm
import torch
from torch import Tensor, nn

from subfour.models import build_model
from subfour.seeding import derive_seed

TIMM_PATTERNS = (
    *("mobilenetv1_100", "mobilenetv2_*", "mobilenetv3_*", "mnasnet_*"),
    *("efficientnet_lite0", "mobilenetv4_conv_small"),
)

NAMES = (
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_small",
    "torchvision/mobilenet_v3_large",
    "subfour/mobilenet_v1",
    "subfour/tiny_mobilenet_v3",
    *(f"timm/{name}" for name in timm.list_models() if any(fnmatch(name, pattern) for pattern in TIMM_PATTERNS)),
)

NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def stock_network(name: str) -> nn.Module:
    """Return a fresh copy of a network in evaluation mode, with random weights and batch norms far from identity."""
    return copy.deepcopy(_built(name))


def random_images(count: int = 2, size: int = 64) -> Tensor:
    """Return normalised images."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(derive_seed("images")))


@functools.cache
def _built(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed("network", name))
        model = build_model(name, num_classes=10).model
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            norm.momentum = 1.0
        model.train()(random_images())  # statistics that keep the values near 1 all the way
        for norm in norms:
            norm.momentum = 0.1
    return model.eval()
