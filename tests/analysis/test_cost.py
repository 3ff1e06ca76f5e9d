import pytest
import torch
from torch import nn

from subfour.analysis.cost import model_bytes
from subfour.convert.calibrate import set_bits
from subfour.convert.rewrite import convert
from subfour.models import build_model

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.mark.parametrize(
    ("name", "bits", "megabytes"),
    [
        ("torchvision/mobilenet_v2", 32, 14.02),
        ("torchvision/mobilenet_v2", 4, 1.875),
        ("torchvision/mobilenet_v3_large", 8, 5.578),
        ("subfour/mobilenet_v1", 4, 2.196),
    ],
)
def test_the_papers_networks(name: str, bits: int, megabytes: float):
    """The sizes that reproduce the supplement's figures, 1000 classes, 1 MB = 1e6 bytes."""
    model = build_model(name, num_classes=1000).model
    convert(model, **HALF)
    set_bits(model, bits, bits)
    assert model_bytes(model) / 1e6 == pytest.approx(megabytes, rel=5e-4)


def test_a_small_model_by_hand():
    """27 x 4 + 2 x 64 + 4 x 3 + 2 x 32 bits = 312 bits; the activation width costs nothing."""
    model = nn.Sequential(nn.Conv2d(3, 1, 3, bias=False), nn.BatchNorm2d(1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 2))
    convert(model, **HALF)
    for activation_bits in (4, 32):
        set_bits(model, 4, activation_bits)
        assert model_bytes(model) == -(-(27 * 4 + 64 + 2 * 4 + 2 * 32) // 8)


def test_every_layer_counts_at_its_own_width():
    """One layer wider by a bit per weight."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, bias=False))
    convert(model, **HALF)
    set_bits(model, 4, 4)
    before = model_bytes(model)
    model[2].weight_quantizer.bits = 8
    assert model_bytes(model) - before == torch.Size([8, 8, 1, 1]).numel() * 4 // 8
