"""A converted network whose convolutions compute on codes: the same parameters and numbers, faster, with less memory.

The plain path (`layers.py`) is the definition. With c the input's code-to-value step (`scale`), d its offset, which is the value
of code 0 and of the padding, and W the quantized weight,

    conv(c * codes + d, W) + bias = conv(codes, c W) + (bias + d sum(W))        padded by code 0

so c goes into the weight's own step, and its gradient falls out of the weight's, frozen weights included: neither needs a
pass over activations. A batch norm in training mode takes d sum(W) out again, so its gradient is 0 and is not computed there.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.engine.chains import Activation, find_folds
from subfour.engine.codes import RELU6_CEILING, ClippedCodes, HardswishCodes, Statistics
from subfour.layers import QuantConv2d
from subfour.ops import QuantParams, fake_quantize, quantize_ste
from subfour.quantizers import Quantizer


def folded_network(model: nn.Module) -> nn.Module:
    """Return a twin of a network, on the same parameters, buffers and quantizers, that computes on codes where it can.

    What trains the one trains the other. Layers keep their names, so whatever watches layers can watch the twin's.

    Args:
        model: converted and calibrated; it is not changed. Its widths must stay as long as the twin is used.
    """
    shared = [*model.parameters(), *model.buffers(), *(module for module in model.modules() if isinstance(module, Quantizer))]
    twin = copy.deepcopy(model, {id(entry): entry for entry in shared})
    modules = dict(twin.named_modules())
    for name, fold in find_folds(model).items():
        layer, norm_after = modules[name], modules.get(fold.norm_after or "")
        assert isinstance(layer, QuantConv2d)
        chain = fold.before
        twin.set_submodule(name, CodesConv2d.of(layer, takes_codes=chain is not None, norm_after=norm_after if fold.norm_after else None))
        if chain is not None:
            norm = modules[chain.norm]
            assert isinstance(norm, nn.BatchNorm2d)
            twin.set_submodule(chain.norm, CodesOfBatchNorm(norm, chain.activation, layer.activation_quantizer))
            if chain.activation_module is not None:
                twin.set_submodule(chain.activation_module, nn.Identity())
    return twin


class CodesOfBatchNorm(nn.Module):
    """A batch norm, the activation behind it and the quantizer of the only convolution that reads it: [N, C, H, W] -> codes."""

    def __init__(self, norm: nn.BatchNorm2d, activation: Activation, quantizer: Quantizer) -> None:
        """Compute the three in one.

        Args:
            norm: with scale, shift and running statistics; its mode decides, as always, which statistics are used.
            activation: behind it.
            quantizer: of the convolution behind that.
        """
        super().__init__()
        self.norm, self.activation, self.quantizer = norm, activation, quantizer

    def forward(self, values: Tensor) -> Tensor:
        """Return the codes, relative to the zero point, as float."""
        params = self.quantizer.params()
        scale, shift, statistics = self.norm.weight, self.norm.bias, self._statistics()
        if self.activation == "hardswish":
            codes: Tensor = HardswishCodes.apply(
                values, scale, shift, params.pre_scale, params.offset, params.lowest, params.highest, statistics
            )
            return codes
        ceiling = RELU6_CEILING / params.pre_scale if self.activation == "relu6" else None
        if ceiling is not None and ceiling >= params.highest:
            ceiling = None  # the range ends first
        step, rectified = params.pre_scale, self.activation != "identity"
        codes = ClippedCodes.apply(
            values, scale / step, (shift - params.offset) / step, ceiling, params.lowest, params.highest, rectified, statistics
        )
        return codes

    def _statistics(self) -> Statistics:
        """Return what to normalise with, and count the batch, as nn.BatchNorm2d does."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        momentum = 0.0 if norm.momentum is None else norm.momentum
        if norm.training:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:
                momentum = 1 / float(norm.num_batches_tracked)
        return Statistics(norm.running_mean, norm.running_var, norm.training, momentum, norm.eps)


class CodesConv2d(QuantConv2d):
    """A quantized convolution on the codes of its input."""

    takes_codes: bool
    """Whether codes arrive, or values."""
    norm_after: tuple[nn.Module, ...]
    """The batch norm that alone reads the output, in a tuple so that it is no submodule."""

    @classmethod
    def of(cls, layer: QuantConv2d, *, takes_codes: bool, norm_after: nn.Module | None) -> "CodesConv2d":
        """Return a layer on another's parameters and quantizers; see the fields."""
        codes = cls.from_float(
            layer,
            kind=layer.kind,
            weight_quantizer=layer.weight_quantizer,
            activation_quantizer=layer.activation_quantizer,
            pad_value=layer.pad_value,
            pads_offset=layer.pads_offset,
        )
        assert isinstance(codes, CodesConv2d)
        codes.takes_codes, codes.norm_after = takes_codes, () if norm_after is None else (norm_after,)
        return codes

    def quantized_input(self, inputs: Tensor) -> Tensor:
        """Return the codes of the input."""
        return inputs if self.takes_codes else quantize_ste(inputs, self.activation_quantizer.params())

    def apply_weight(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Convolve codes with a quantized weight, as the values that they stand for."""
        params = self.activation_quantizer.params()
        return self._convolve(inputs, weight * params.scale, params)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the quantized layer."""
        params, codes = self.activation_quantizer.params(), self.quantized_input(inputs)
        if not self.weight_quantizer.enabled:
            return self._convolve(codes, self.weight * params.scale, params)
        weight = self.weight_quantizer.params()
        return self._convolve(codes, fake_quantize(self.weight, replace(weight, scale=weight.scale * params.scale)), params)

    def _convolve(self, codes: Tensor, scaled: Tensor, params: QuantParams) -> Tensor:
        """Return the convolution of codes with the weight times the input's scale, the offset in the bias."""
        bias = self.bias
        if params.offset:
            normalized = any(norm.training for norm in self.norm_after)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not normalized):
                shift = scaled.flatten(1).sum(dim=1) * (params.offset / params.scale)
            bias = shift if bias is None else bias + shift
        return F.conv2d(codes, scaled, bias, self.stride, self.padding, self.dilation, self.groups)
