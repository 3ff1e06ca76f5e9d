"""Ranges and bias correction from batch norms alone: no images, no training.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, arXiv:1906.04721,
Sec. 4.2. What a batch norm gives is taken as normal, with mean beta and deviation |gamma| per channel, and followed through
activation functions, sums and pools:

    ranges     from samples of it, by each quantizer's own start
    bias      -= (Q(W) - W) * E[x]

The paper sets activation ranges at a number of deviations and has E[x] in closed form; a fixed sample serves both here, and any
quantizer. A sum's terms count as independent, and a pooled map has its channels' means. The image has mean 0.
"""

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.convert.batchnorm import batchnorm_after
from subfour.convert.graph import RANGE_KEEPING, SUMS, activation_in, module_of, operation_of, pools_globally, trace
from subfour.layers import QuantConv2d, QuantLinear, quant_layers
from subfour.modes import evaluation_mode
from subfour.seeding import derive_seed

SAMPLES = 4096
"""Per channel."""

ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6, "hardswish": F.hardswish}


@torch.no_grad()
def set_ranges(model: nn.Module) -> None:
    """Set the range of every activation quantizer that quantizes and has none, in place.

    Args:
        model: converted, its weights at their width.

    Raises:
        ValueError: nothing is known of what feeds a layer, or it tells nothing about a range; names the layer.
    """
    samples = input_samples(model)
    for name, layer in quant_layers(model).items():
        quantizer = layer.activation_quantizer
        if quantizer.needs_ranges:
            try:
                quantizer.initialize(samples[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


@torch.no_grad()
def correct_biases(model: nn.Module) -> None:
    """Take what quantized weights add to each output channel's mean from its bias, or from the batch norm behind it, in place.

    Args:
        model: converted, with weight ranges; the modes of its modules are restored.

    Raises:
        ValueError: nothing is known of what feeds a layer, or it has neither bias nor batch norm; names it.
    """
    norms = batchnorm_after(model)
    with evaluation_mode(model):  # in training some quantizers follow the weights, or add noise to them
        shifts = {name: _shift(layer, values) for (name, values), layer in _with_layers(model)}
    for name, shift in shifts.items():
        layer, norm = quant_layers(model)[name], norms.get(name)
        if norm is not None and norm.running_mean is not None:
            norm.running_mean.add_(shift)
        elif layer.bias is not None:
            layer.bias.sub_(shift)
        else:
            raise ValueError(f"{name}: it has neither a bias nor a batch norm to correct")


def _with_layers(model: nn.Module) -> list[tuple[tuple[str, Tensor], QuantConv2d | QuantLinear]]:
    layers = quant_layers(model)
    return [(entry, layers[entry[0]]) for entry in input_samples(model).items()]


def _shift(layer: QuantConv2d | QuantLinear, values: Tensor) -> Tensor:
    """Return (Q(W) - W) E[x], [O]."""
    error = layer.quantized_weight() - layer.weight
    mean = values.mean(dim=0)
    if isinstance(layer, QuantLinear):
        return F.linear(mean, error)
    constant = mean[:, None, None].expand(-1, *error.shape[2:])
    return F.conv2d(constant, error, groups=layer.groups).flatten()


def input_samples(model: nn.Module) -> dict[str, Tensor]:
    """Return samples [N, C] of what enters each layer but those that read the image.

    Raises:
        ValueError: nothing is known of what feeds a layer; names it.
    """
    generator = torch.Generator().manual_seed(derive_seed("data-free"))
    known: dict[fx.Node, Tensor | None] = {}
    entering: dict[str, Tensor] = {}
    for node in trace(model).nodes:
        module = module_of(model, node)
        operands = [known[operand] for operand in node.all_input_nodes]
        if isinstance(module, QuantConv2d | QuantLinear) and module.kind != "stem":
            if operands[0] is None:
                raise ValueError(
                    f"{node.target}: nothing is known of its input without data; that works behind batch norm, activation "
                    "functions, sums and pools only"
                )
            entering[str(node.target)] = operands[0]
        known[node] = _output(node, module, operands, generator)
    return entering


def _normalized(norm: _BatchNorm, generator: torch.Generator) -> Tensor | None:
    """Return samples [N, C] of what a batch norm gives, and the activation inside it if there is one; None: it is not known."""
    noise = torch.randn(SAMPLES, norm.num_features, generator=generator).to(norm.weight)
    values, act = norm.bias + norm.weight.abs() * noise, activation_in(norm)
    if act == "identity":
        return values
    return ACTIVATIONS[act](values) if act in ACTIVATIONS else None


def _output(node: fx.Node, module: nn.Module | None, operands: list[Tensor | None], generator: torch.Generator) -> Tensor | None:
    """Return samples [N, C] of what a node gives; None where nothing is known."""
    if isinstance(module, _BatchNorm):
        return _normalized(module, generator)
    operation, terms = operation_of(node, module), [operand for operand in operands if operand is not None]
    if not terms or len(terms) < len(operands):
        return None
    if operation in ACTIVATIONS:
        return ACTIVATIONS[operation](terms[0])
    if operation in SUMS:
        return sum(terms[1:], terms[0])
    if pools_globally(operation, node, module):
        return terms[0].mean(dim=0, keepdim=True)
    return terms[0] if operation in RANGE_KEEPING else None
