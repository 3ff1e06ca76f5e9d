from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from subfour.integer.fold import fold
from subfour.layers import QuantConv2d, QuantLinear
from subfour.ops import quantize
from subfour.quantizers import QUANTIZER_PAIRS, Domain, QuantizerName
from subfour.seeding import derive_seed


def quantized_layer(
    layer: nn.Conv2d | nn.Linear, domain: Domain, *, quantizer: QuantizerName = "duq", pad_value: float | None = None
) -> QuantConv2d | QuantLinear:
    """Return a quantized layer in float64, calibrated on normal values, padded with its input's offset."""
    method = QUANTIZER_PAIRS[quantizer]
    parts = {"weight_quantizer": method.weight(), "activation_quantizer": method.activation(domain)}
    made: QuantConv2d | QuantLinear
    if isinstance(layer, nn.Linear):
        made = QuantLinear.from_float(layer, kind="linear", **parts)
    else:
        offset = parts["activation_quantizer"].offset
        made = QuantConv2d.from_float(layer, kind="conv", pad_value=offset if pad_value is None else pad_value, **parts)
    made.set_bits(4, 4)
    made.weight_quantizer.initialize(made.weight)
    made.activation_quantizer.initialize(values_for(layer))
    if quantizer == "duq":  # trained ranges: what clips is not what the codes reach
        with torch.no_grad():
            made.weight_quantizer.output_range_raw += 0.3
            made.activation_quantizer.output_range_raw -= 0.2
    return made.double().eval()


def norm_for(channels: int, *, affine: bool = True) -> nn.BatchNorm2d:
    """Return a batch norm in float64: gains of both signs, one of 0, and one channel without variance."""
    generator = torch.Generator().manual_seed(derive_seed("norm"))
    norm = nn.BatchNorm2d(channels, affine=affine).double().eval()
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.1, 3, generator=generator)
    norm.running_var[1] = 0
    if affine:
        with torch.no_grad():
            norm.weight.normal_(generator=generator)
            norm.weight[0], norm.weight[2] = -1.5, 0.0
            norm.bias.normal_(generator=generator)
    return norm


def values_for(layer: nn.Conv2d | nn.Linear) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("values"))
    shape = (5, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 7, 6)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def folded_output(layer: QuantConv2d | QuantLinear, norm: nn.BatchNorm2d | None, values: Tensor) -> Tensor:
    """Return multiplier * conv(codes, codes) + addend; the border is code 0."""
    folded = fold(layer, norm, dtype=torch.float64)
    codes = quantize(values, layer.activation_quantizer.params())
    if isinstance(layer, QuantLinear):
        return nn.functional.linear(codes, folded.codes) * folded.multiplier + folded.addend
    window = (layer.stride, layer.padding, layer.dilation, layer.groups)
    sums = nn.functional.conv2d(codes, folded.codes, None, *window)
    return sums * folded.multiplier.view(1, -1, 1, 1) + folded.addend.view(1, -1, 1, 1)


LAYERS: dict[str, Callable[[], nn.Conv2d | nn.Linear]] = {
    "dense": lambda: nn.Conv2d(6, 8, 3, padding=1, bias=False),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, padding=1, stride=2, groups=6, bias=False),
    "pointwise": lambda: nn.Conv2d(6, 8, 1),
    "dilated": lambda: nn.Conv2d(6, 8, (3, 2), padding=(2, 1), dilation=2, groups=2),
    "linear": lambda: nn.Linear(6, 8),
}


@pytest.mark.parametrize("quantizer", ["duq", "pact-sawb"])
@pytest.mark.parametrize("domain", ["unsigned", "hswish", "signed"])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("norm", ["affine", "plain", "none"])
def test_the_integer_form_is_the_layer_and_its_batch_norm(kind: str, domain: Domain, norm: str, quantizer: QuantizerName):
    """Gains of both signs and of 0, a channel without variance, biases, groups; -3/8 around the border under h-swish."""
    torch.manual_seed(derive_seed(kind))
    layer = quantized_layer(LAYERS[kind](), domain, quantizer=quantizer)
    if isinstance(layer, QuantLinear) and norm != "none":
        following = nn.BatchNorm1d(layer.out_features).double().eval()
        following.load_state_dict(norm_for(layer.out_features).state_dict())
    else:
        following = None if norm == "none" else norm_for(layer.out_channels, affine=norm == "affine")
    values = values_for(layer)
    with torch.no_grad():
        expected = layer(values) if following is None else following(layer(values))
        torch.testing.assert_close(folded_output(layer, following, values), expected, rtol=1e-12, atol=1e-12)


def test_multipliers_are_not_negative_and_codes_stay_integers_of_the_width():
    """A negative gain turns the codes of its channel round."""
    torch.manual_seed(derive_seed("sign"))
    layer, norm = quantized_layer(LAYERS["dense"](), "unsigned"), norm_for(8)
    folded = fold(layer, norm, dtype=torch.float64)
    codes = layer.weight_quantizer.codes(layer.weight)
    assert (folded.multiplier >= 0).all()
    assert folded.codes.abs().max() <= 7
    signs = torch.where(norm.weight < 0, -1.0, 1.0)
    assert torch.equal(folded.codes, codes * signs.view(-1, 1, 1, 1))
    assert (signs < 0).any()


def test_the_integer_form_trains_as_the_layer_does():
    """Weight, ranges, gain and shift get the gradients of the module chain."""
    torch.manual_seed(derive_seed("gradients"))
    layer, norm = quantized_layer(LAYERS["dense"](), "hswish"), norm_for(8)
    values = values_for(layer)
    parameters = {"gain": norm.weight, "shift": norm.bias, **dict(layer.named_parameters())}
    parameters.pop("activation_quantizer.input_range_raw")  # decides codes, which are given here
    weighting = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    gradients = []
    for output in (norm(layer(values)), folded_output(layer, norm, values)):
        gradients.append(torch.autograd.grad((output * weighting).sum(), [*parameters.values()]))
    for name, expected, found in zip(parameters, *gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        assert found.abs().max() > 0, name


@pytest.mark.parametrize("widths", [(32, 4), (4, 32)])
def test_a_float_layer_is_refused(widths: tuple[int, int]):
    layer = quantized_layer(LAYERS["dense"](), "unsigned")
    layer.set_bits(*widths)
    with pytest.raises(ValueError, match="it is still float; train it down to 8 bits or less"):
        fold(layer, None)


def test_weights_with_an_offset_are_refused():
    """DSQ: value = code * D + lower. Without its lower end the file would be another network."""
    layer = quantized_layer(LAYERS["dense"](), "unsigned", quantizer="dsq")
    with pytest.raises(ValueError, match=r"DSQWeight: its weights have an offset, which this integer form has not"):
        fold(layer, None)


def test_a_border_of_zeros_under_h_swish_is_refused():
    """0 is no code there; a layer without border does not care."""
    with pytest.raises(ValueError, match=r"padding: it pads with 0\.0, .* --padding negative"):
        fold(quantized_layer(LAYERS["dense"](), "hswish", pad_value=0.0), None)
    fold(quantized_layer(LAYERS["pointwise"](), "hswish", pad_value=0.0), None)
