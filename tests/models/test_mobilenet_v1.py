"""MobileNet v1 is the paper's network."""

import pytest
import torch
from torch import nn

from subfour.models.mobilenet_v1 import MobileNetV1


def count_macs(model: nn.Module, size: int) -> int:
    """Count multiply-accumulates of convolutions and linear layers for one image, padded positions in full."""
    macs = []

    def add(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        macs.append(layer.weight[0].numel() * output.numel())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    model.to("meta")(torch.zeros(1, 3, size, size, device="meta"))
    return sum(macs)


def test_it_has_the_macs_and_parameters_of_the_paper():
    """569 million and 4.2 million in Table 8; the exact count is the cost model's oracle."""
    model = MobileNetV1().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_231_976
    assert count_macs(model, 224) == 568_740_352


@pytest.mark.parametrize(("width", "macs"), [(0.75, 325e6), (0.5, 149e6), (0.25, 41e6)])
def test_width_scales_the_macs_as_in_table_6(width: float, macs: float):
    """325, 149 and 41 million."""
    assert count_macs(MobileNetV1(width=width).eval(), 224) == pytest.approx(macs, rel=0.02)


def test_channels_stay_multiples_of_eight():
    """Also where the width makes them small or odd."""
    convs = [module for module in MobileNetV1(width=0.1).modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.out_channels % 8 == 0 and conv.out_channels >= 8 for conv in convs)
