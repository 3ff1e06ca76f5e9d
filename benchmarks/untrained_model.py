"""Stock networks at 224 pixels as a run would leave them, but for the training: for size, form and speed."""

from dataclasses import replace

import torch

from subfour.data.preprocess import Preprocessing
from subfour.export.untrained import random_pixels, untrained_network
from subfour.integer.build import build_program
from subfour.integer.measure import measure
from subfour.profit.data_record import DataRecord
from subfour.profit.model_file import TrainedModel
from subfour.recipes import load_recipe

IMAGENET = Preprocessing(
    image_size=224, resize_size=256, interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
CLASSES = 1000
BITS = 4


@torch.no_grad()
def untrained_model(name: str) -> TrainedModel:
    """Return a network with random weights, calibrated and measured for snapping on random pixels, W4A4."""
    network = untrained_network(name, IMAGENET, classes=CLASSES, weight_bits=BITS, activation_bits=BITS)
    return TrainedModel(
        model=network,
        config=replace(load_recipe("imagenet-mobilenet-v2"), model=name),
        data=DataRecord(classes=tuple(map(str, range(CLASSES))), preprocessing=IMAGENET),
        rules=[],
        weight_bits=BITS,
        activation_bits=BITS,
        snapping=measure(build_program(network, IMAGENET, dtype=torch.float64), [random_pixels(4, IMAGENET.image_size)]),
    )
