"""The exchange of a float network's layers for quantized ones, in place and by exact name.

`forward` stays the model's own and the parameters stay the same objects under the same names, so that the float weights,
their state dict and every training script of the model go on working. At 32/32 bits, where conversion leaves the layers, the
output is the float network's bit for bit, but for what negative padding changes.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from subfour.convert.batchnorm import fuse_batchnorm
from subfour.convert.policy import LayerRule, Padding, make_policy
from subfour.convert.skips import find_skips, quantize_skips
from subfour.layers import QuantConv2d, QuantLinear
from subfour.ops import FLOAT_BITS
from subfour.quantizers import Granularity, ImageQuantizer, Quantizer, QuantizerName, check_granularity, quantizer_pair

BatchNorm = Literal["unfused", "fused"]
"""`fused`: weights are quantized with the batch norm's gain, as it would be folded into them."""


def convert(
    model: nn.Module,
    *,
    quantizer: QuantizerName = "duq",
    padding: Padding = "negative",
    weight_granularity: Granularity = "layer",
    batchnorm: BatchNorm = "unfused",
    skip_bits: int = FLOAT_BITS,
    mean: Sequence[float],
    std: Sequence[float],
) -> list[LayerRule]:
    """Quantize every convolution and linear layer of a network, in place; the layers start at 32/32 bits.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 8, 3, padding=1))
    >>> [rule.pad_value for rule in convert(model, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))]
    [0.0, -0.375]

    Args:
        model: a float network that takes normalised images [N, 3, H, W]; unchanged when an error is raised.
        quantizer: the pair, see `subfour.quantizers`.
        padding: what convolutions are padded with.
        weight_granularity: whether weights have a range per layer or per output channel.
        skip_bits: width of what skip paths carry; 32 is float.
        batchnorm: whether weights are quantized with the gain of the batch norm behind them.
        mean: of the image's normalisation, per channel, for pixels in 0..1.
        std: likewise.

    Returns:
        The rule of every layer, in the model's own order.

    Raises:
        ValueError: a layer cannot be placed or quantized; the message names it. Or the method has no ranges per channel.
    """
    skips = find_skips(model) if skip_bits != FLOAT_BITS else {}
    rules = make_policy(model, quantizer=quantizer, padding=padding)
    check_granularity(quantizer, weight_granularity)
    pair = quantizer_pair(quantizer)
    converted = {}
    for rule in rules:
        layer = model.get_submodule(rule.name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weight = pair.weight(range_shape=channel_shape(layer.weight)) if weight_granularity == "channel" else pair.weight()
        activation = ImageQuantizer(mean, std) if rule.domain == "image" else pair.activation(rule.domain)
        converted[rule.name] = _quantized(layer, rule, weight_quantizer=weight, activation_quantizer=activation)
    for name, layer in converted.items():
        model.set_submodule(name, layer, strict=True)
    if batchnorm == "fused":
        fuse_batchnorm(model)
    domains = {rule.name: rule.domain for rule in rules if rule.domain != "image"}
    quantize_skips(model, skips, domains, pair.activation, skip_bits)
    return rules


def _quantized(
    layer: nn.Conv2d | nn.Linear, rule: LayerRule, *, weight_quantizer: Quantizer, activation_quantizer: Quantizer
) -> QuantConv2d | QuantLinear:
    """Return the quantized layer around a float layer's own parameters, on the same device."""
    quantized: QuantConv2d | QuantLinear
    if isinstance(layer, nn.Conv2d):
        try:
            quantized = QuantConv2d.from_float(
                layer,
                kind=rule.kind,
                weight_quantizer=weight_quantizer,
                activation_quantizer=activation_quantizer,
                pad_value=rule.pad_value,
                pads_offset=rule.pads_offset,
            )
        except ValueError as error:
            raise ValueError(f"{rule.name}: {error}") from None
    else:
        quantized = QuantLinear.from_float(
            layer, kind=rule.kind, weight_quantizer=weight_quantizer, activation_quantizer=activation_quantizer
        )
    return quantized.to(quantized.weight.device)


def channel_shape(weight: Tensor) -> list[int]:
    """Return the shape [O, 1, ...] of one range per output channel of a weight."""
    return [weight.shape[0], *[1] * (weight.dim() - 1)]
