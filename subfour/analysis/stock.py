"""The workload of a network by name: built and converted without a single weight, so in no time."""

import torch

from subfour.analysis.workload import Workload, measure_workload
from subfour.convert.rewrite import convert
from subfour.models.zoo import STOCK, Architecture, build_model

IMAGENET_CLASSES = 1000
IMAGENET_PIXELS = 224


def stock_workload(
    name: str, image_size: int, *, num_classes: int = IMAGENET_CLASSES, architecture: Architecture = STOCK
) -> Workload:
    """Return what a network computes on one image.

    Args:
        name: see models/zoo.py.
        image_size: side of the square image, pixels.
        num_classes: size of the head.
        architecture: changes to the network.

    Raises:
        ValueError: there is no such network, it does not convert, or the image is too small for it.
    """
    with torch.device("meta"):
        model = build_model(name, num_classes=num_classes, architecture=architecture).model
    convert(model, mean=(0.5,) * 3, std=(0.5,) * 3)
    return measure_workload(model, image_size)
