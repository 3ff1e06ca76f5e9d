"""The tiny network has every idea of the large one, at sizes where padding and AIWQ mean something."""

import torch
from torch import nn

from subfour.convert.policy import make_policy
from subfour.models.tiny import tiny_mobilenet_v3


def test_it_has_se_skips_and_padded_hswish_depthwise_layers():
    """Three SE blocks of two layers, five depthwise convolutions padded with -3/8, and skips."""
    rules = make_policy(tiny_mobilenet_v3(), quantizer="duq", padding="negative")
    assert sum(rule.kind == "se" for rule in rules) == 6
    assert sum(rule.kind == "depthwise" and rule.pad_value == -0.375 for rule in rules) == 5
    assert any(rule.source.startswith("residual sum") for rule in rules)
    assert {rule.domain for rule in rules} == {"image", "unsigned", "hswish", "signed"}


def test_it_is_small_and_its_last_map_is_four_by_four():
    """For 32x32 images."""
    model = tiny_mobilenet_v3().eval()
    assert 50_000 < sum(parameter.numel() for parameter in model.parameters()) < 100_000
    assert model.features(torch.zeros(1, 3, 32, 32)).shape[2:] == (4, 4)


def test_width_scales_every_layer():
    """Head included."""
    narrow, wide = (
        [layer.weight.shape[0] for layer in tiny_mobilenet_v3(width=width).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        for width in (0.5, 2.0)
    )
    assert all(few < many for few, many in zip(narrow[:-1], wide[:-1], strict=True))
