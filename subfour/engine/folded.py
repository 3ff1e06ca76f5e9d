"""A converted network whose layers compute on codes: the same parameters and numbers, faster, with less memory.

The plain path (`layers.py`) is the definition. With c the input's code-to-value step (`scale`), d its offset, which is the value
of code 0 and of the padding, and W the quantized weight,

    conv(c * codes + d, W) + bias = conv(codes, c W) + (bias + d sum(W))        padded by code 0

so c goes into the weight's own step, and its gradient falls out of the weight's, frozen weights included: neither needs a
pass over activations. A batch norm in training mode takes d sum(W) out again, so its gradient is 0 and is not computed there.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.engine.chains import Activation, find_folds
from subfour.engine.codes import Behind, Statistics, codes_of
from subfour.engine.gates import FactorOfGate, GatedCodes, gated_codes
from subfour.engine.weights import scaled_weight
from subfour.layers import QuantConv2d, QuantLayer, QuantLinear
from subfour.ops import QuantParams, exact, fake_quantize, quantize_ste
from subfour.quantizers import DuQ, DuQStack, Quantizer


class Operations(NamedTuple):
    """What a twin computes with: functions of torch, or kernels that compute the same (`compiled.py`)."""

    codes_of: Callable[[Tensor, Tensor, Tensor, Statistics, Behind], Tensor]
    quantized_layer: Callable[["CodesLayer", Tensor, QuantParams], Tensor]
    """A layer's output from what enters it, with the constants of its weight quantizer."""
    quantize: Callable[[Tensor, QuantParams], Tensor]
    """Values to codes."""
    gated_codes: GatedCodes


def quantized_layer(layer: "CodesLayer", inputs: Tensor, params: QuantParams) -> Tensor:
    """Return what a layer makes of what enters it; see the head of this file."""
    return layer.computed(layer.quantized_input(inputs), scaled_weight(layer.weight, params, layer.input_params.scale))


TORCH = Operations(codes_of, quantized_layer, quantize_ste, gated_codes)


def folded_network(model: nn.Module, operations: Operations = TORCH) -> nn.Module:
    """Return a twin of a network, on the same parameters, buffers and quantizers, that computes on codes where it can.

    What trains the one trains the other. Layers keep their names, so whatever watches layers can watch the twin's.

    Args:
        model: converted and calibrated; it is not changed. Its widths must stay as long as the twin is used.
        operations: what it computes with.
    """
    shared = [*model.parameters(), *model.buffers(), *(module for module in model.modules() if isinstance(module, Quantizer))]
    twin = copy.deepcopy(model, {id(entry): entry for entry in shared})
    modules = dict(twin.named_modules())
    layers = []
    for name, fold in find_folds(model).items():
        stock = modules[name]
        assert isinstance(stock, QuantConv2d | QuantLinear)
        layer = CodesConv2d.of(stock) if isinstance(stock, QuantConv2d) else CodesLinear.of(stock)
        layer.takes_codes = fold.before is not None or fold.gate is not None
        layer.norm_after = () if fold.norm_after is None else (modules[fold.norm_after],)
        layer.operations = operations
        layers.append(layer)
        twin.set_submodule(name, layer)
        if fold.before is not None:
            norm = modules[fold.before.norm]
            assert isinstance(norm, nn.BatchNorm2d)
            twin.set_submodule(fold.before.norm, CodesOfBatchNorm(norm, fold.before.activation, layer))
            if fold.before.activation_module is not None:
                twin.set_submodule(fold.before.activation_module, nn.Identity())
        if fold.gate is not None:
            factor = FactorOfGate(modules[fold.gate], partial(getattr, layer, "input_params"), operations.gated_codes)
            twin.set_submodule(fold.gate, factor)
    if layers:
        twin.register_forward_pre_hook(_Ranges(layers))
    return twin


class CodesLayer(QuantLayer):
    """A quantized layer on the codes of its input."""

    takes_codes: bool
    """Whether codes arrive, or values."""
    norm_after: tuple[nn.Module, ...]
    """The batch norm that alone reads the output, in a tuple so that it is no submodule."""
    operations: Operations
    input_params: QuantParams
    """Of the activation quantizer, in this forward pass."""
    weight_params: QuantParams | None
    """Of the weight quantizer, in this forward pass; None: the weight is float."""

    def quantized_input(self, inputs: Tensor) -> Tensor:
        """Return the codes of the input."""
        return inputs if self.takes_codes else self.operations.quantize(exact(inputs), self.input_params)

    def quantized_weight(self) -> Tensor:
        """Return the quantized weight of this forward pass."""
        return self.weight if self.weight_params is None else fake_quantize(self.weight, self.weight_params)

    def apply_weight(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Compute on codes, with a weight, what the layer computes on the values that they stand for."""
        return self.computed(inputs, weight * self.input_params.scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the quantized layer."""
        params = self.weight_params
        if params is None:
            return self.apply_weight(self.quantized_input(inputs), self.weight)
        return self.operations.quantized_layer(self, inputs, params)

    @property
    def normalized(self) -> bool:
        """Whether a batch norm takes out again what all images have in common."""
        return any(norm.training for norm in self.norm_after)

    def computed(self, codes: Tensor, weight: Tensor) -> Tensor:
        """Compute on codes with a weight that has the input's scale in it; the input's offset goes into the bias."""
        params, bias = self.input_params, cast("Tensor | None", self.bias)
        if params.offset:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.normalized):
                shift = weight.flatten(1).sum(dim=1) * (params.offset / params.scale)
            bias = shift if bias is None else bias + shift
        return self._linear_map(codes, weight, bias)

    def _linear_map(self, codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError


class CodesConv2d(CodesLayer, QuantConv2d):
    """A convolution on codes; code 0 is what it pads with."""

    @classmethod
    def of(cls, layer: QuantConv2d) -> "CodesConv2d":
        """Return a layer on another's parameters and quantizers."""
        return cls.from_float(
            layer,
            kind=layer.kind,
            weight_quantizer=layer.weight_quantizer,
            activation_quantizer=layer.activation_quantizer,
            pad_value=layer.pad_value,
            pads_offset=layer.pads_offset,
        )

    def _linear_map(self, codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(codes, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class CodesLinear(CodesLayer, QuantLinear):
    """A linear layer on codes."""

    @classmethod
    def of(cls, layer: QuantLinear) -> "CodesLinear":
        """Return a layer on another's parameters and quantizers."""
        return cls.from_float(
            layer,
            kind=layer.kind,
            weight_quantizer=layer.weight_quantizer,
            activation_quantizer=layer.activation_quantizer,
        )

    def _linear_map(self, codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(codes, weight, bias)


class CodesOfBatchNorm(nn.Module):
    """A batch norm, the activation behind it and the quantizer of the only layer that reads it: [N, C, H, W] -> codes."""

    def __init__(self, norm: nn.BatchNorm2d, activation: Activation, reader: CodesLayer) -> None:
        """Compute the three in one.

        Args:
            norm: with scale, shift and running statistics; its mode decides, as always, which statistics are used.
            activation: behind it.
            reader: the layer behind that.
        """
        super().__init__()
        self.norm, self.activation = norm, activation
        self._reader = (reader,)

    def forward(self, values: Tensor) -> Tensor:
        """Return the codes, relative to the zero point, as float.

        Raises:
            ValueError: a batch of one value per channel, which has no variance.
        """
        if self.norm.training and values.numel() == values.shape[1]:
            raise ValueError(f"batch norm: no variance in a batch of shape {tuple(values.shape)}; use a larger batch or images")
        (reader,) = self._reader
        behind = Behind(self.activation, reader.input_params)
        return reader.operations.codes_of(exact(values), self.norm.weight, self.norm.bias, self._statistics(), behind)

    def _statistics(self) -> Statistics:
        """Return what to normalise with, and count the batch, as nn.BatchNorm2d does."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        if norm.training:
            norm.num_batches_tracked.add_(1)
        momentum = 1 / max(int(norm.num_batches_tracked), 1) if norm.momentum is None else norm.momentum
        return Statistics(norm.running_mean, norm.running_var, norm.training, momentum, norm.eps)


class _Ranges:
    """Forward pre-hook of a twin: gives every layer on codes the constants of its quantizers, as they are now."""

    def __init__(self, layers: Sequence[CodesLayer]) -> None:
        self._layers = layers
        quantizers = [quantizer for layer in layers for quantizer in (layer.activation_quantizer, layer.weight_quantizer)]
        self._single = [quantizer for quantizer in quantizers if isinstance(quantizer, DuQ) and _has_single_ranges(quantizer)]
        self._stack = DuQStack(self._single)

    def __call__(self, twin: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        del twin, inputs
        stacked: dict[Quantizer, QuantParams] = dict(zip(self._single, self._stack.params(), strict=True))
        for layer in self._layers:
            quantizer = layer.weight_quantizer
            weight_params = (stacked.get(quantizer) or quantizer.params()) if quantizer.enabled else None
            # Past nn.Module's setter, which looks for parameters and modules first.
            vars(layer).update(input_params=stacked[layer.activation_quantizer], weight_params=weight_params)


def _has_single_ranges(quantizer: DuQ) -> bool:
    return quantizer.enabled and quantizer.input_range_raw.dim() == 0
