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
    match operation:
        case Lookup():
            return _look_up(operation, *inputs)
        case Layer():
            return _rescale(operation, accumulate(operation, *inputs))
        case Activate():
            return FUNCTIONS[operation.function](inputs[0])
        case Quantize():
            grid = IntegerGrid(operation.qmin, operation.qmax)
            return quantize_ste(inputs[0], QuantParams(grid, operation.step, operation.step, operation.offset))
        case Dequantize():
            return (inputs[0] - operation.zero) * operation.factor
        case Add():
            return inputs[0] + inputs[1]
        case Multiply():
            return inputs[0] * inputs[1]
        case Pool():
            return inputs[0].mean(dim=(2, 3), keepdim=True)
        case CodeSum():
            return inputs[0].sum(dim=(2, 3), keepdim=True)
        case Gate():
            codes, gate = inputs
            return codes * gate + operation.zero * (operation.largest - gate)
        case Flatten():
            return inputs[0].flatten(1)


def accumulate(layer: Layer, codes: Tensor) -> Tensor:
    """Return the accumulators of a layer, integers in floating point."""
    codes = codes.to(layer.codes.dtype)
    if layer.linear:
        return F.linear(codes, layer.codes)
    return F.conv2d(codes, layer.codes, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _rescale(layer: Layer, accumulators: Tensor) -> Tensor:
    shape = (1, -1) if layer.linear else (1, -1, 1, 1)
    return accumulators * layer.multiplier.view(shape) + layer.addend.view(shape)


def _look_up(lookup: Lookup, pixels: Tensor) -> Tensor:
    channels = torch.arange(pixels.shape[1], device=pixels.device).view(1, -1, 1, 1)
    codes = lookup.table[channels, pixels.long()].to(torch.float32)
    return codes.contiguous(memory_format=torch.channels_last)
