"""What `bench_training.py` compares with: the same float network, each layer with another library's or paper's quantizers.

Every rival quantizes what enters a layer and its weight to 4 bits (the image to 8), with a learned step for either. Convolution,
batch norm and activation stay those of the stock network. The authors' DuQ pads with -3/8 where h-swish enters, others with 0.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.convert.graph import Site, find_sites

BITS, IMAGE_BITS = 4, 8


class RivalLayer(nn.Module):
    """A float layer's own parameters behind two quantizers."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, inputs: nn.Module, weights: nn.Module, border: float) -> None:
        """Put quantizers before a layer."""
        super().__init__()
        self.layer, self.inputs, self.weights, self.border = layer, inputs, weights, border

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the layer on quantized inputs with a quantized weight."""
        layer, inputs, weight = self.layer, self.inputs(inputs), self.weights(self.layer.weight)
        if isinstance(layer, nn.Linear):
            return F.linear(inputs, weight, layer.bias)
        padding = layer.padding
        if self.border and any(layer.padding):
            inputs, padding = F.pad(inputs, layer._reversed_padding_repeated_twice, value=self.border), (0, 0)
        return F.conv2d(inputs, weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class EagerLSQ(nn.Module):
    """LSQ as its public codes write it: eager operations, autograd."""

    def __init__(self, lowest: int, highest: int) -> None:
        """Take the ends of the grid."""
        super().__init__()
        self.lowest, self.highest, self.step = lowest, highest, nn.Parameter(torch.tensor(0.1))

    def forward(self, values: Tensor) -> Tensor:
        """Fake-quantize."""
        gradient_scale = (values.numel() * self.highest) ** -0.5
        step = self.step * gradient_scale + (self.step - self.step * gradient_scale).detach()
        position = torch.clamp(values / step, self.lowest, self.highest)
        return ((position.round() - position).detach() + position) * step


class EagerDuQ(nn.Module):
    """DuQ as the authors write it: eager operations, autograd, a rounding function with a straight-through gradient."""

    def __init__(self, lowest: int, highest: int, offset: float) -> None:
        """Take the ends of the grid and the offset."""
        super().__init__()
        self.low, self.levels, self.offset = lowest / highest, highest, offset
        self.a, self.c = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))

    def forward(self, values: Tensor) -> Tensor:
        """Fake-quantize."""
        a, c = F.softplus(self.a), F.softplus(self.c)
        values = values - self.offset if self.offset else values
        values = F.hardtanh(values / a, self.low, 1.0)
        values = _Round.apply(values * self.levels) / self.levels * c
        return values + self.offset if self.offset else values


def _learnable(lowest: int, highest: int) -> nn.Module:
    from torch.ao.quantization import MovingAverageMinMaxObserver
    from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

    quantizer = _LearnableFakeQuantize(
        MovingAverageMinMaxObserver,
        quant_min=lowest,
        quant_max=highest,
        scale=0.1,
        zero_point=0.0,
        use_grad_scaling=True,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    )
    quantizer.enable_param_learning()
    return quantizer


def _grids(site: Site) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the ends of the grids of inputs and weights."""
    largest = 2 ** (BITS - 1) - 1
    image, symmetric = 2 ** (IMAGE_BITS - 1) - 1, (-largest, largest)
    inputs = {"image": (-image, image), "signed": symmetric}.get(site.domain, (0, 2**BITS - 1))
    return inputs, symmetric


def _behind(make: Callable[[int, int], nn.Module]) -> Callable[[Site], nn.Module]:
    def layer(site: Site) -> nn.Module:
        inputs, weights = _grids(site)
        return RivalLayer(site.layer, make(*inputs), make(*weights), 0.0)

    return layer


def _authors_duq(site: Site) -> nn.Module:
    inputs, weights = _grids(site)
    offset = -0.375 if site.domain == "hswish" else 0.0
    return RivalLayer(site.layer, EagerDuQ(*inputs, offset), EagerDuQ(*weights, 0.0), offset)


def _brevitas(site: Site) -> nn.Module:
    import brevitas.nn as qnn
    from brevitas.inject.enum import ScalingImplType
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat

    signed = site.domain in ("image", "signed")
    choices = {
        "input_quant": Int8ActPerTensorFloat if signed else Uint8ActPerTensorFloat,
        "input_bit_width": IMAGE_BITS if site.domain == "image" else BITS,
        "input_collect_stats_steps": 1,
        "weight_quant": Int8WeightPerTensorFloat,
        "weight_bit_width": BITS,
        "weight_scaling_impl_type": ScalingImplType.PARAMETER_FROM_STATS,
        "bias": site.layer.bias is not None,
    }
    stock = site.layer
    if isinstance(stock, nn.Linear):
        layer: nn.Module = qnn.QuantLinear(stock.in_features, stock.out_features, **choices)
    else:
        window = {"stride": stock.stride, "padding": stock.padding, "dilation": stock.dilation, "groups": stock.groups}
        layer = qnn.QuantConv2d(stock.in_channels, stock.out_channels, stock.kernel_size, **window, **choices)
    layer.load_state_dict(stock.state_dict(), strict=False)
    return layer.to(memory_format=torch.channels_last)


RIVALS: dict[str, Callable[[Site], nn.Module]] = {
    "DuQ, the authors' eager chain": _authors_duq,
    "LSQ, eager": _behind(EagerLSQ),
    "torch.ao learnable fake quantize": _behind(_learnable),
    "Brevitas, learned scale": _brevitas,
}

PACKAGES = {"Brevitas, learned scale": "brevitas"}
"""What a rival needs beside torch."""


def missing() -> dict[str, str]:
    """Return the rivals that cannot run here, and the package that each needs."""
    return {rival: package for rival, package in PACKAGES.items() if find_spec(package) is None}


def rival_network(model: nn.Module, rival: str) -> nn.Module:
    """Put a rival's quantizers into a float network, in place, and return it."""
    for site in find_sites(model):
        model.set_submodule(site.name, RIVALS[rival](site), strict=True)
    return model
