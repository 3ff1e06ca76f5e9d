"""One rule for each layer of the stock networks, checked by hand and against what really flows."""

import math
from collections import Counter

import pytest
import torch
from torch import nn

from subfour.convert.policy import make_policy
from subfour.quantizers import HSWISH_MINIMUM
from tests.convert.stock_networks import NAMES, random_images, stock_network

SMALLEST = {
    "image": (-math.inf, 0),
    "signed": (-math.inf, HSWISH_MINIMUM),
    "hswish": (HSWISH_MINIMUM, 0),
    "unsigned": (0, math.inf),
}
"""Domain -> where the smallest of many values lies."""


def rules_of(name: str, **options: str):
    return {rule.name: rule for rule in make_policy(stock_network(name), **{"quantizer": "duq", "padding": "negative"} | options)}


def test_timm_has_22_of_the_networks():
    """The names issue 1 asks for, from the installed timm."""
    assert sum(name.startswith("timm/") for name in NAMES) == 22


def test_torchvision_v3_large_has_64_layers_of_which_16_are_se():
    """62 convolutions, 16 of them squeeze-and-excitation, and 2 linear layers."""
    rules = rules_of("torchvision/mobilenet_v3_large").values()
    assert Counter(rule.kind for rule in rules) == {"stem": 1, "depthwise": 15, "pointwise": 30, "se": 16, "linear": 2}


def test_rules_of_torchvision_v3_large_checked_by_hand():
    """From Table 1 of the paper and torchvision's source: ReLU up to block 6, h-swish from 7 on, skips where shapes agree."""
    rules = rules_of("torchvision/mobilenet_v3_large")
    by_hand = {
        "features.0.0": ("stem", "image", 0.0, "the image"),
        "features.1.block.0.0": ("depthwise", "hswish", -0.375, "Hardswish features.0.2"),
        "features.1.block.1.0": ("pointwise", "unsigned", 0.0, "ReLU features.1.block.0.2"),
        "features.2.block.0.0": ("pointwise", "signed", 0.0, "residual sum in features.1"),
        "features.2.block.1.0": ("depthwise", "unsigned", 0.0, "ReLU features.2.block.0.2"),
        "features.3.block.0.0": ("pointwise", "signed", 0.0, "BatchNorm2d features.2.block.2.1"),
        "features.4.block.2.fc1": ("se", "unsigned", 0.0, "ReLU features.4.block.1.2, pooled"),
        "features.4.block.2.fc2": ("se", "unsigned", 0.0, "ReLU features.4.block.2.activation"),
        "features.4.block.3.0": ("pointwise", "unsigned", 0.0, "ReLU features.4.block.1.2, gated"),
        "features.7.block.1.0": ("depthwise", "hswish", -0.375, "Hardswish features.7.block.0.2"),
        "features.7.block.2.0": ("pointwise", "hswish", 0.0, "Hardswish features.7.block.1.2"),
        "features.11.block.2.fc1": ("se", "hswish", 0.0, "Hardswish features.11.block.1.2, pooled"),
        "features.11.block.3.0": ("pointwise", "hswish", 0.0, "Hardswish features.11.block.1.2, gated"),
        "features.16.0": ("pointwise", "signed", 0.0, "residual sum in features.15"),
        "classifier.0": ("linear", "hswish", 0.0, "Hardswish features.16.2, pooled"),
        "classifier.3": ("linear", "hswish", 0.0, "Hardswish classifier.1"),
    }
    found = {name: (rule.kind, rule.domain, rule.pad_value, rule.source) for name, rule in rules.items() if name in by_hand}
    assert found == by_hand


@pytest.mark.parametrize(
    ("network", "layer", "kind", "domain", "pad_value"),
    [
        ("torchvision/mobilenet_v2", "features.2.conv.0.0", "pointwise", "signed", 0.0),
        ("torchvision/mobilenet_v2", "features.2.conv.1.0", "depthwise", "unsigned", 0.0),
        ("torchvision/mobilenet_v2", "classifier.1", "linear", "unsigned", 0.0),
        ("subfour/mobilenet_v1", "blocks.12.pointwise.conv", "pointwise", "unsigned", 0.0),
        ("timm/mobilenetv3_small_100", "blocks.0.0.conv_dw", "depthwise", "hswish", -0.375),
        ("timm/mobilenetv3_small_100", "blocks.1.1.conv_pwl", "pointwise", "unsigned", 0.0),
        ("timm/mobilenetv3_small_100", "blocks.2.0.se.conv_reduce", "se", "hswish", 0.0),
        ("timm/mobilenetv3_small_100", "blocks.2.1.conv_pw", "pointwise", "signed", 0.0),
        ("timm/mobilenetv3_small_100", "conv_head", "pointwise", "hswish", 0.0),
        ("timm/mobilenetv3_small_100", "classifier", "linear", "hswish", 0.0),
        ("timm/mnasnet_small", "blocks.3.0.se.conv_expand", "se", "unsigned", 0.0),
        ("timm/mobilenetv4_conv_small", "blocks.2.5.dw_start.conv", "depthwise", "signed", 0.0),
    ],
)
def test_rules_of_other_networks_checked_by_hand(network: str, layer: str, kind: str, domain: str, pad_value: float):
    """One layer of each sort; mobilenetv4 has depthwise convolutions on linear bottlenecks."""
    rule = rules_of(network)[layer]
    assert (rule.kind, rule.domain, rule.pad_value) == (kind, domain, pad_value)


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_a_rule_that_holds_for_what_really_enters_it(name: str):
    """The float network is run, and the smallest value that enters each layer is held against its domain."""
    model, images = stock_network(name), random_images()
    smallest = {}
    for layer_name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_pre_hook(lambda _, inputs, key=layer_name: smallest.update({key: inputs[0].min().item()}))
    with torch.no_grad():
        model(images)
    rules = make_policy(model, quantizer="duq", padding="negative")
    assert [rule.name for rule in rules] == [key for key, _ in model.named_modules() if key in smallest]
    for rule in rules:
        low, high = SMALLEST[rule.domain]
        pooled = rule.source.endswith("pooled")  # a mean of h-swish outputs may be positive everywhere
        assert low <= smallest[rule.name] <= (math.inf if pooled else high), rule


def test_only_padded_convolutions_on_hswish_are_padded_with_its_minimum():
    """And with zero padding, or a quantizer whose offset is 0, none."""
    for name, options, padded in (
        ("torchvision/mobilenet_v3_large", {}, 10),  # one behind the stem and nine behind h-swish expansions
        ("torchvision/mobilenet_v3_large", {"padding": "zero"}, 0),
        ("torchvision/mobilenet_v3_large", {"quantizer": "pact-sawb"}, 0),
        ("torchvision/mobilenet_v2", {}, 0),
    ):
        rules = rules_of(name, **options).values()
        negative = [rule for rule in rules if rule.pad_value]
        assert len(negative) == padded
        assert all((rule.kind, rule.domain, rule.pad_value) == ("depthwise", "hswish", -0.375) for rule in negative)


def test_reasons_tell_the_range_and_the_exceptions():
    """They are what `inspect` prints."""
    rules = rules_of("subfour/tiny_mobilenet_v3")
    assert rules["features.0.0"].reason == "pixels, range fixed by the normalisation; keeps 8 bits"
    assert rules["features.3.block.2.fc1"].reason == "never below -3/8; keeps 8 bits"
    assert rules["features.6.0"].reason == "both signs"


@pytest.mark.parametrize(("option", "value"), [("quantizer", "dug"), ("padding", "reflect")])
def test_an_unknown_option_is_an_error_that_lists_the_known(option: str, value: str):
    """Named by field."""
    with pytest.raises(ValueError, match=f"{option}: '{value}' is not known; use"):
        rules_of("subfour/tiny_mobilenet_v3", **{option: value})
