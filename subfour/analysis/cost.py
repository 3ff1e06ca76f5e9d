"""What a network costs: bit operations, bytes, and the activation memory it needs.

Source: supplement of PROFIT, arXiv:2008.04693, Sec. 4, which counts as UNIQ does (Baskin et al., arXiv:1804.10969), in the
reading that reproduces its three figures to the digit. A layer of N weights, fan-in f, at P positions, weights of w bits and
inputs of b bits:

    MAC   = N * P                                            padded positions counted in full
    BOPS  = MAC * (b*w + b + w + log2(f)) + N*w              the last term fetches each parameter once
    bits  = N*w + 32 per bias + 2*32 per batch-norm channel  1 MB = 1e6 bytes

Every convolution and linear layer counts, squeeze-and-excitation and classifier included; biases, batch norm, activation
functions, gates, pooling, sums and quantizers do not. Profiles: `ours` gives the first convolution and the layers of
squeeze-and-excitation inputs of at least 8 bits; `uniform` gives every layer the same (how the paper counts other people's
models). Activation memory (ours): while a layer runs, its input + its output + what waits, each once, in elements times
bits: the layer's input bits, the activation width, and 16 bits (32 in float) for whatever waits for a skip or a gate.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log2
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.analysis.workload import LayerWork, Workload
from subfour.layers import LayerKind, input_bits, quant_layers
from subfour.ops import FLOAT_BITS

BIAS_BITS = 32
BATCHNORM_CHANNEL_BITS = 2 * 32
SKIP_BITS = 16

Profile = Literal["ours", "uniform"]
"""Which inputs keep 8 bits: the first and those of squeeze-and-excitation, or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """One layer on one image."""

    name: str
    kind: LayerKind
    input_bits: int
    macs: int
    bops: float
    bytes: float
    """Of weights and bias."""
    activation_bytes: float
    """Of input, output and what waits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """A network on one image, at one pair of widths."""

    weight_bits: int
    activation_bits: int
    profile: Profile
    bytes: int
    """Of weights, biases and batch norm."""
    layers: tuple[LayerCost, ...]
    """In the order in which they run."""

    @property
    def macs(self) -> int:
        """Of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def bops(self) -> float:
        """Of all layers."""
        return sum(layer.bops for layer in self.layers)

    @property
    def peak_activation_bytes(self) -> float:
        """Of the layer that needs most."""
        return max(layer.activation_bytes for layer in self.layers)


def network_cost(
    workload: Workload, *, weight_bits: int, activation_bits: int, profile: Profile = "ours", fetch: bool = True
) -> Cost:
    """Return what a network costs.

    Args:
        workload: from `measure_workload`.
        weight_bits: of every weight; 32 is float.
        activation_bits: of the layers' inputs; 32 is float.
        profile: which inputs keep 8 bits.
        fetch: whether each parameter's one fetch counts.
    """
    return Cost(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        profile=profile,
        bytes=_stored_bytes(((work.weights, work.biases, weight_bits) for work in workload.layers), workload.batchnorm_channels),
        layers=tuple(_layer_cost(work, weight_bits, activation_bits, profile, fetch=fetch) for work in workload.layers),
    )


def model_bytes(model: nn.Module) -> int:
    """Return the bytes a converted model needs at its present weight widths.

    Args:
        model: a converted model.
    """
    layers = (
        (layer.weight.numel(), 0 if layer.bias is None else layer.bias.numel(), layer.weight_quantizer.bits)
        for layer in quant_layers(model).values()
    )
    return _stored_bytes(layers, sum(norm.num_features for norm in model.modules() if isinstance(norm, _BatchNorm)))


def _layer_cost(work: LayerWork, weight_bits: int, activation_bits: int, profile: Profile, *, fetch: bool) -> LayerCost:
    entering = input_bits(work.kind, activation_bits) if profile == "ours" else activation_bits
    per_mac = entering * weight_bits + entering + weight_bits + log2(work.fan_in)
    waiting_bits = FLOAT_BITS if activation_bits == FLOAT_BITS else SKIP_BITS
    activations = (
        work.inputs * (waiting_bits if work.input_waits else entering)
        + work.outputs * (waiting_bits if work.output_waits else activation_bits)
        + work.waiting * waiting_bits
    )
    return LayerCost(
        name=work.name,
        kind=work.kind,
        input_bits=entering,
        macs=work.macs,
        bops=work.macs * per_mac + (work.weights * weight_bits if fetch else 0),
        bytes=_layer_bits(work.weights, work.biases, weight_bits) / 8,
        activation_bytes=activations / 8,
    )


def _layer_bits(weights: int, biases: int, weight_bits: int) -> int:
    return weights * weight_bits + biases * BIAS_BITS


def _stored_bytes(layers: Iterable[tuple[int, int, int]], batchnorm_channels: int) -> int:
    """Return the bytes of layers, each (weights, biases, weight bits), and batch norms."""
    bits = sum(_layer_bits(*layer) for layer in layers) + batchnorm_channels * BATCHNORM_CHANNEL_BITS
    return (bits + 7) // 8
