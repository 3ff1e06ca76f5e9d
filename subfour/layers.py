"""Convolution and linear layers that quantize what enters them and their own weights.

    output = apply_weight(pad(activation_quantizer(input)), weight_quantizer(weight))

The activation quantizer sits at the layer's entrance, so a skip path that starts at the same tensor stays in high
precision (precision highway, supplement Sec. 5). A convolution pads its quantized input with the quantizer's `offset`: -3/8
where an h-swish output enters (negative padding), a learned one where there is one, else 0.
"""

from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.quantizers import Quantizer

LayerKind = Literal["stem", "depthwise", "pointwise", "conv", "se", "linear"]
"""What a layer is in a MobileNet. `se`: squeeze-and-excitation, whatever its module class; `linear`: the classifier."""

SMALLEST_GAIN = 1e-12
"""Of a fused batch norm, in magnitude: a channel it has switched off must not divide by 0."""

EIGHT_BIT_INPUT: frozenset[LayerKind] = frozenset({"stem", "se"})
"""Layers whose input keeps at least 8 bits (supplement Sec. 5)."""


def input_bits(kind: LayerKind, activation_bits: int) -> int:
    """Return the width of a layer's input at a width of activations: image and SE keep at least 8 bits (supplement, Sec. 5)."""
    return max(activation_bits, 8) if kind in EIGHT_BIT_INPUT else activation_bits


class QuantLayer(nn.Module):
    """What quantized convolution and linear layers share."""

    weight: Tensor
    kind: LayerKind
    weight_quantizer: Quantizer
    activation_quantizer: Quantizer
    fused_batchnorm: tuple[_BatchNorm, ...] = ()
    """The batch norm whose gain the weight is quantized with (`convert/batchnorm.py`), in a tuple so that it is no submodule."""

    def set_bits(self, weight_bits: int, activation_bits: int) -> None:
        """Set both widths; the image and SE inputs keep at least 8 bits."""
        self.weight_quantizer.bits = weight_bits
        self.activation_quantizer.bits = input_bits(self.kind, activation_bits)

    def quantized_input(self, inputs: Tensor) -> Tensor:
        """Return the input as the layer computes with it."""
        quantized: Tensor = self.activation_quantizer(inputs)
        return quantized

    def quantized_weight(self) -> Tensor:
        """Return the weight as the layer computes with it."""
        if not self.weight_quantizer.enabled:
            return self.weight
        quantized: Tensor = self.weight_quantizer(self.folded_weight())
        return self.unfolded(quantized)

    def folded_weight(self) -> Tensor:
        """Return the weight as its quantizer meets it: times the gain of a fused batch norm."""
        return self.weight * self._gain() if self.fused_batchnorm else self.weight

    def unfolded(self, folded: Tensor) -> Tensor:
        """Return the weight that `folded_weight` makes this of."""
        return folded / self._gain() if self.fused_batchnorm else folded

    def _gain(self) -> Tensor:
        """Return gamma / sqrt(var + eps) of the fused batch norm, [O, 1, ...]."""
        (norm,) = self.fused_batchnorm
        assert norm.running_var is not None
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        gain = torch.where(gain.abs() < SMALLEST_GAIN, SMALLEST_GAIN, gain)
        return gain.reshape(-1, *[1] * (self.weight.dim() - 1))

    def apply_weight(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Compute the layer on a quantized input with a given weight, padding included."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the quantized layer."""
        return self.apply_weight(self.quantized_input(inputs), self.quantized_weight())


class QuantConv2d(QuantLayer, nn.Conv2d):
    """A convolution [N, C, H, W] -> [N, O, H', W'] with quantized input and weight."""

    pad_value: float
    """What a float input is padded with, and a quantized one unless `pads_offset`."""
    pads_offset: bool
    """Whether a quantized input is padded with the quantizer's offset, which may be learned."""

    @classmethod
    def from_float(
        cls,
        conv: nn.Conv2d,
        *,
        kind: LayerKind,
        weight_quantizer: Quantizer,
        activation_quantizer: Quantizer,
        pad_value: float = 0.0,
        pads_offset: bool = False,
    ) -> Self:
        """Return the quantized layer around a float convolution's own parameters.

        Args:
            conv: the float layer; its parameters are shared, not copied.
            kind: the layer's role.
            weight_quantizer: for the weight.
            activation_quantizer: for the input.
            pad_value: what the border is padded with.
            pads_offset: whether the border of a quantized input follows the quantizer's offset.

        Raises:
            ValueError: the layer pads by another mode than a constant, or by name ("same").
        """
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(
                f"padding: {conv.padding!r} in mode {conv.padding_mode!r} is not possible; use explicit sizes and 'zeros'"
            )
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            device="meta",
        )
        layer.weight, layer.bias = conv.weight, conv.bias
        layer.kind, layer.pad_value, layer.pads_offset = kind, pad_value, pads_offset
        layer.weight_quantizer, layer.activation_quantizer = weight_quantizer, activation_quantizer
        return layer.train(conv.training)

    @property
    def border(self) -> float:
        """What the input is padded with at its present width."""
        quantizer = self.activation_quantizer
        return quantizer.offset if self.pads_offset and quantizer.enabled else self.pad_value

    def apply_weight(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Convolve with the layer's own padding."""
        padding = self.padding
        if border := self.border:
            inputs = F.pad(inputs, self._reversed_padding_repeated_twice, value=border)
            padding = (0, 0)
        return F.conv2d(inputs, weight, self.bias, self.stride, padding, self.dilation, self.groups)


class QuantLinear(QuantLayer, nn.Linear):
    """A linear layer [..., I] -> [..., O] with quantized input and weight."""

    @classmethod
    def from_float(
        cls, linear: nn.Linear, *, kind: LayerKind, weight_quantizer: Quantizer, activation_quantizer: Quantizer
    ) -> Self:
        """Return the quantized layer around a float layer's own parameters; see `QuantConv2d.from_float`."""
        layer = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        layer.kind = kind
        layer.weight_quantizer, layer.activation_quantizer = weight_quantizer, activation_quantizer
        return layer.train(linear.training)

    def apply_weight(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Multiply."""
        return F.linear(inputs, weight, self.bias)


def quant_layers(model: nn.Module) -> dict[str, QuantConv2d | QuantLinear]:
    """Return every quantized layer by its exact name, in the model's own order."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantConv2d | QuantLinear)}


def freezable_layers(model: nn.Module) -> dict[str, QuantConv2d]:
    """Return the layers that AIWQ samples and PROFIT may freeze: the convolutions of the main path, never SE."""
    return {name: layer for name, layer in quant_layers(model).items() if isinstance(layer, QuantConv2d) and layer.kind != "se"}
