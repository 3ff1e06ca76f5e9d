"""A program in torch, differentiable: what the snap phase trains, and one of the executors that must agree.

Codes are integers in floating point. A convolution of codes is exact in float32 in whatever order it sums, as long as no
accumulator reaches 2^24.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.integer.program import (
    IMAGE,
    Activate,
    Add,
    CodeSum,
    Dequantize,
    Flatten,
    Function,
    Gate,
    Layer,
    Lookup,
    Multiply,
    Operation,
    Pool,
    Program,
    Quantize,
)
from subfour.ops import IntegerGrid, QuantParams, quantize_ste

FUNCTIONS: dict[Function, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
}


def execute(program: Program, pixels: Tensor) -> dict[str, Tensor]:
    """Return every value and all codes of a program by name; `program.output` names the logits.

    Args:
        program: its constants on the same device.
        pixels: uint8 [N, 3, H, W].
    """
    values: dict[str, Tensor] = {IMAGE: pixels}
    for operation in program.operations:
        values[operation.name] = compute(operation, [values[name] for name in operation.inputs])
    return values


def compute(operation: Operation, inputs: list[Tensor]) -> Tensor:
    """Return what one operation gives."""
    return COMPUTE[type(operation)](operation, *inputs)


def accumulate(layer: Layer, codes: Tensor) -> Tensor:
    """Return the accumulators of a layer, integers in floating point."""
    codes = codes.to(layer.codes.dtype)
    if layer.linear:
        return F.linear(codes, layer.codes)
    return F.conv2d(codes, layer.codes, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _layer(layer: Layer, codes: Tensor) -> Tensor:
    shape = (1, -1) if layer.linear else (1, -1, 1, 1)
    return accumulate(layer, codes) * layer.multiplier.view(shape) + layer.addend.view(shape)


def _look_up(lookup: Lookup, pixels: Tensor) -> Tensor:
    channels = torch.arange(pixels.shape[1], device=pixels.device).view(1, -1, 1, 1)
    codes = lookup.table[channels, pixels.long()].to(torch.float32)
    return codes.contiguous(memory_format=torch.channels_last)


def _quantize(quantize: Quantize, values: Tensor) -> Tensor:
    grid = IntegerGrid(quantize.qmin, quantize.qmax)
    return quantize_ste(values, QuantParams(grid, quantize.step, quantize.step, quantize.offset))


COMPUTE: dict[type[Operation], Callable[..., Tensor]] = {
    Lookup: _look_up,
    Layer: _layer,
    Quantize: _quantize,
    Activate: lambda operation, values: FUNCTIONS[operation.function](values),
    Dequantize: lambda operation, codes: (codes - operation.zero) * operation.factor,
    Add: lambda _, first, second: first + second,
    Multiply: lambda _, values, gate: values * gate,
    Pool: lambda _, values: values.mean(dim=(2, 3), keepdim=True),
    CodeSum: lambda _, codes: codes.sum(dim=(2, 3), keepdim=True),
    Gate: lambda operation, codes, gate: codes * gate + operation.zero * (operation.largest - gate),
    Flatten: lambda _, codes: codes.flatten(1),
}
