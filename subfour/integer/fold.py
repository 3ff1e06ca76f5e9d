"""Batch norm, offset and the ranges of both quantizers in one multiplier and one addend per channel.

A layer whose input has codes q (scale c, offset d: value = c*q + d), whose weight has codes k (scale w), followed by a batch
norm with gain g = gamma / sqrt(var + eps), gives (padding, where there is any, is code 0)

    g * (conv(c*q + d, w*k) + bias - mean) + beta  =  multiplier * conv(q, k) + addend

    multiplier[o] = c * w * g[o]
    addend[o]     = beta[o] + g[o] * (bias[o] - mean[o] + d * w * sum(k[o]))

Supplement of PROFIT, Sec. 5, Eq. 1-2, but folded into the rescale of the accumulator and never into the quantized weights.
Without a batch norm g = 1 and mean = beta = 0. A negative g flips the sign of that channel's codes, so that multipliers are
not negative. Everything is differentiable in weights, batch norm and ranges: the snap phase trains through it.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.layers import QuantConv2d, QuantLinear
from subfour.ops import QuantParams, quantize_ste


class Folded(NamedTuple):
    """The integer form of a layer."""

    codes: Tensor
    """Of the weight, integers as float, in the weight's shape."""
    multiplier: Tensor
    """[O]"""
    addend: Tensor
    """[O]"""


def fold(layer: QuantConv2d | QuantLinear, norm: _BatchNorm | None, *, dtype: torch.dtype = torch.float32) -> Folded:
    """Return the integer form of a quantized layer and the batch norm behind it, as they are in evaluation mode.

    Args:
        layer: quantizing its input and its weight.
        norm: reads this layer's output and nothing else does; None without one.
        dtype: of what is returned; the codes are those of training, whatever it is.

    Raises:
        ValueError: the layer is float, its weights have an offset, its padding is not code 0 of its input, or its batch norm
            has no running statistics.
    """
    inputs, weights = layer.activation_quantizer, layer.weight_quantizer
    if not (inputs.enabled and weights.enabled):
        raise ValueError("it is still float; train it down to 8 bits or less, weights and activations")
    input_params, weight_params = inputs.params(), weights.params()
    if weight_params.offset != 0:
        raise ValueError(f"{type(weights).__name__}: its weights have an offset, which this integer form has not")
    if isinstance(layer, QuantConv2d) and any(layer.padding) and layer.border != inputs.offset:
        raise ValueError(f"padding: it pads with {layer.border}, which is no code of its input; train with --padding negative")
    codes = quantize_ste(layer.folded_weight(), weight_params)
    channels = codes.shape[0]
    weight_scale = _weight_scale(layer, weight_params).to(dtype)
    gain, shift = torch.ones(channels, dtype=dtype, device=codes.device), torch.zeros(channels, dtype=dtype, device=codes.device)
    bias = shift if layer.bias is None else layer.bias.to(dtype)
    if norm is not None:
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("its batch norm has no running statistics, so that nothing can be folded")
        gain = torch.rsqrt(norm.running_var.to(dtype) + norm.eps)
        gain = gain * norm.weight.to(dtype) if norm.affine else gain
        shift = norm.bias.to(dtype) if norm.affine else shift
        bias = bias - norm.running_mean.to(dtype)
    multiplier = input_params.scale.to(dtype) * weight_scale * gain
    addend = shift + gain * (bias + input_params.offset * weight_scale * codes.to(dtype).flatten(1).sum(dim=1))
    sign = torch.where(multiplier.detach() < 0, -1.0, 1.0)
    flipped = codes.to(dtype) * sign.to(dtype).view(-1, *[1] * (codes.ndim - 1))
    return Folded(flipped, multiplier * sign.to(dtype), addend)


def _weight_scale(layer: QuantConv2d | QuantLinear, params: QuantParams) -> Tensor:
    """Return the value of one step of the weight per channel, [O]; a fused batch norm's gain is taken out again."""
    per_channel = layer.weight.new_ones(len(layer.weight), *[1] * (layer.weight.ndim - 1)) * params.scale
    return layer.unfolded(per_channel).flatten()
