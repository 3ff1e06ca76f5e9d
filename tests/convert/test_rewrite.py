"""Conversion changes nothing at 32/32 bits, misses nothing, and leaves a network that trains."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.convert.rewrite import convert
from subfour.layers import QuantConv2d, quant_layers
from subfour.quantizers import QUANTIZER_PAIRS, ImageQuantizer, QuantizerName
from tests.convert.stock_networks import NAMES, NORMALIZATION, random_images, stock_network


def pad_negatively(layer: nn.Conv2d) -> None:
    """Give a stock convolution the padding of an h-swish input, with nothing of ours."""
    (vertical, horizontal), layer.padding = layer.padding, (0, 0)
    pads = (horizontal, horizontal, vertical, vertical)
    layer.register_forward_pre_hook(lambda _, inputs: F.pad(inputs[0], pads, value=-3 / 8))


@pytest.mark.parametrize("name", NAMES)
def test_at_32_bits_the_output_is_the_float_networks_bit_for_bit(name: str):
    """With zero padding the untouched network's; with negative padding that of stock layers padded on the listed convolutions."""
    stock, images = stock_network(name), random_images()
    zero, negative, reference = (copy.deepcopy(stock) for _ in range(3))
    convert(zero, padding="zero", **NORMALIZATION)
    for rule in convert(negative, **NORMALIZATION):
        if rule.pad_value:
            pad_negatively(reference.get_submodule(rule.name))
    with torch.no_grad():
        stock_logits, reference_logits = stock(images), reference(images)
        assert torch.equal(zero(images), stock_logits)
        assert torch.equal(negative(images), reference_logits)
    assert stock_logits.isfinite().all()
    assert not torch.equal(stock_logits[0], stock_logits[1])
    has_hswish = any(isinstance(module, nn.Hardswish) for module in stock.modules())
    assert torch.equal(stock_logits, reference_logits) != has_hswish


@pytest.mark.parametrize("name", NAMES)
def test_no_float_layer_is_left_and_every_state_dict_name_stays(name: str):
    """Same keys in the same order, the very same parameters, only quantizer state beside them."""
    model = stock_network(name)
    before = dict(model.named_parameters())
    keys = list(model.state_dict())
    rules = convert(model, **NORMALIZATION)
    layers = {key: module for key, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert layers == quant_layers(model)
    assert [rule.name for rule in rules] == list(layers)
    after = dict(model.named_parameters())
    assert all(after[key] is value for key, value in before.items())
    assert [key for key in model.state_dict() if "_quantizer." not in key] == keys


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_moves_every_batch_norm(name: str):
    """Batch norm is really in training mode after conversion, timm's BatchNormAct2d too."""
    model = stock_network(name)
    convert(model, **NORMALIZATION)
    norms = {key: module for key, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    before = {key: norm.running_mean.clone() for key, norm in norms.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    F.cross_entropy(model(random_images()), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert norms
    assert not [key for key, norm in norms.items() if torch.equal(norm.running_mean, before[key])]


@pytest.mark.parametrize("name", QUANTIZER_PAIRS)
def test_rules_are_written_into_the_layers(name: QuantizerName):
    """Kind, domain, padding, quantizers and widths of each layer are those of its rule."""
    model = stock_network("subfour/tiny_mobilenet_v3")
    for rule in convert(model, quantizer=name, **NORMALIZATION):
        layer = model.get_submodule(rule.name)
        assert layer.kind == rule.kind
        assert not isinstance(layer, QuantConv2d) or layer.pad_value == rule.pad_value
        assert type(layer.weight_quantizer) is QUANTIZER_PAIRS[name].weight
        assert type(layer.activation_quantizer) is (
            ImageQuantizer if rule.domain == "image" else QUANTIZER_PAIRS[name].activation
        )
        assert layer.activation_quantizer.domain == ("signed" if rule.domain == "image" else rule.domain)
        assert layer.weight_quantizer.bits == layer.activation_quantizer.bits == 32


def test_quantizers_are_made_where_the_model_lies():
    """A model on another device is converted there."""
    model = stock_network("subfour/tiny_mobilenet_v3").to("meta")
    convert(model, **NORMALIZATION)
    assert all(value.is_meta for value in model.state_dict().values())


def test_the_image_quantizer_gets_the_normalisation():
    """Its range is the largest normalised pixel."""
    model = stock_network("subfour/tiny_mobilenet_v3")
    convert(model, **NORMALIZATION)
    quantizer = model.get_submodule("features.0.0").activation_quantizer
    assert quantizer.image_range.item() == pytest.approx((1 - 0.406) / 0.225)


def test_modes_are_kept():
    """A layer's mode is the float layer's."""
    model = stock_network("subfour/tiny_mobilenet_v3")
    model.features[1].train()
    convert(model, **NORMALIZATION)
    assert model.get_submodule("features.1.block.0.0").training
    assert not model.get_submodule("features.0.0").training


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (timm.create_model("tf_mobilenetv3_small_minimal_100"), "conv_stem: Conv2dSame computes in its own way"),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding="same")), "0: padding: 'same'"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")), "1: padding: .*'reflect'"),
    ],
)
def test_a_convolution_that_pads_otherwise_is_an_error_and_leaves_the_model_whole(model: nn.Module, message: str):
    """Named, and before any layer was exchanged."""
    with pytest.raises(ValueError, match=message):
        convert(model, **NORMALIZATION)
    assert not quant_layers(model)


def test_a_converted_model_is_not_converted_again():
    """The layers are no longer stock layers."""
    model = stock_network("subfour/tiny_mobilenet_v3")
    convert(model, **NORMALIZATION)
    with pytest.raises(ValueError, match=r"features.0.0: QuantConv2d computes in its own way"):
        convert(model, **NORMALIZATION)
