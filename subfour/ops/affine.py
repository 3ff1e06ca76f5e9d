"""The one form: every uniform quantizer, whatever its paper, is this pair of functions.

    code  = round(clip((value - offset) / pre_scale, qmin - zero_point, qmax - zero_point)) + zero_point
    value = (code - zero_point) * scale + offset

Ties round to even. Clipping comes before rounding: the codes are the same either way, and only this order
has the right gradient at the ends of the range. DuQ has `pre_scale = a / L` and `scale = c / L`; LSQ and PACT have
`pre_scale = scale`; LSQ+ and DSQ learn the `offset` too; an affine quantizer has an integer `zero_point`, as ONNX
QuantizeLinear has.

Padding with `offset`, the value of code `zero_point`, costs no level and adds nothing at deployment: that is negative
padding (-3/8 under h-swish) and ordinary zero padding (offset 0) in one line.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from subfour.ops.grid import IntegerGrid

LARGEST_RATIO = 2.0**64
"""Of scale to pre_scale in the gradient: far beyond what trains, far below what overflows."""


def exact(values: Tensor) -> Tensor:
    """Return values in float32 at least: mixed precision gives some in 16 bits, where neither ranges nor codes are exact."""
    return values.float() if values.dtype.itemsize < torch.float32.itemsize else values


@dataclass(frozen=True, slots=True)
class QuantParams:
    """Constants of the one form. Tensors broadcast against the values."""

    grid: IntegerGrid
    pre_scale: Tensor
    """Value-to-code step, positive."""
    scale: Tensor
    """Code-to-value step, positive."""
    offset: Tensor | float = 0.0
    """Real shift: the value of code `zero_point`. A tensor where it is learned."""
    zero_point: int = 0
    """Integer shift, inside the grid."""

    @property
    def lowest(self) -> int:
        """Smallest code relative to `zero_point`."""
        return self.grid.qmin - self.zero_point

    @property
    def highest(self) -> int:
        """Largest code relative to `zero_point`."""
        return self.grid.qmax - self.zero_point


def quantize(values: Tensor, params: QuantParams) -> Tensor:
    """Return the integer code of each value, as float.

    Args:
        values: any shape; the tensors of `params` broadcast against it.
        params: scales and grid.
    """
    codes = _position(values, params).clamp_(params.lowest, params.highest).round_()
    return codes.add_(params.zero_point) if params.zero_point else codes


def dequantize(codes: Tensor, params: QuantParams) -> Tensor:
    """Return the real value of each code."""
    values = (codes - params.zero_point if params.zero_point else codes) * params.scale
    return values.add_(params.offset) if _shifts(params) else values


def bin_centres(codes: Tensor, params: QuantParams) -> Tensor:
    """Return the value in the middle of those that get each code: `quantize` maps it back to the same code."""
    return dequantize(codes, replace(params, scale=params.pre_scale))


def fake_quantize(values: Tensor, params: QuantParams) -> Tensor:
    """Return `dequantize(quantize(values))`, with a gradient to train through.

    Rounding passes the gradient straight through; clip, `pre_scale`, `scale` and `offset` have their true gradients.

    >>> grid = IntegerGrid.unsigned(2)
    >>> fake_quantize(torch.tensor([-1.0, 0.4, 9.0]), QuantParams(grid, torch.tensor(1.0), torch.tensor(1.0)))
    tensor([0., 0., 3.])
    """
    return _FakeQuantize.apply(values, params, params.pre_scale, params.scale, params.offset)  # type: ignore[no-any-return]


def quantize_ste(values: Tensor, params: QuantParams) -> Tensor:
    """Return `quantize(values)` relative to `zero_point`, with a gradient to train through.

    Rounding passes the gradient straight through: d code / d values = 1 / pre_scale inside the range.
    """
    return _QuantizeSTE.apply(values, params, params.pre_scale, params.offset)  # type: ignore[no-any-return]


def _position(values: Tensor, params: QuantParams) -> Tensor:
    """Where each value lies on the unbounded code axis, relative to `zero_point`."""
    if not _shifts(params):
        return values / params.pre_scale
    return (values - params.offset).div_(params.pre_scale)


def _shifts(params: QuantParams) -> bool:
    """Return whether there is an offset, without a look at the value of a learned one."""
    return isinstance(params.offset, Tensor) or params.offset != 0


@lru_cache
def just_outside(lowest: int, highest: int, dtype: torch.dtype) -> tuple[float, float]:
    """Return the neighbours of the ends of the grid: strictly between them is what lies inside."""
    ends = torch.tensor([lowest, highest], dtype=dtype)
    low, high = torch.nextafter(ends, torch.tensor([-torch.inf, torch.inf], dtype=dtype)).tolist()
    return low, high


def sum_of_products(first: Tensor, second: Tensor, shape: torch.Size) -> Tensor:
    """Return `(first * second).sum_to_size(shape)`; a single number without the tensor in between."""
    if shape.numel() > 1:
        return (first * second).sum_to_size(shape)
    by_channel = first.dim() == 4 and first.is_contiguous(memory_format=torch.channels_last)
    rows = [tensor.movedim(1, -1).reshape(-1) if by_channel else tensor.reshape(-1) for tensor in (first, second)]
    return torch.dot(*rows).view(shape)


class _FakeQuantize(torch.autograd.Function):
    """`dequantize(quantize(.))` and its straight-through gradient.

    With u the position, k = round(clip(u)) and m = [lowest <= u <= highest]:

        d value / d values    = m * scale / pre_scale
        d value / d pre_scale = -m * u * scale / pre_scale
        d value / d scale     = k
        d value / d offset    = 1 - m * scale / pre_scale

    Written out, and not left to autograd of the chain, because a clipped u may be infinite (a tiny range), and the
    chain would then multiply infinity by the zero of the mask; it also keeps one tensor for backward and not four.
    For the same reason scale / pre_scale saturates.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, params: QuantParams, *learned: Tensor | float) -> Tensor:
        del learned  # pre_scale, scale and offset are inputs only so that they get their gradients
        ctx.save_for_backward(values, params.pre_scale, params.scale)
        ctx.params = params
        quantized = _position(values, params).clamp_(params.lowest, params.highest).round_().mul_(params.scale)
        return quantized.add_(params.offset) if _shifts(params) else quantized

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, Tensor | None]:
        values, pre_scale, scale = ctx.saved_tensors
        params: QuantParams = ctx.params
        position = _position(values, params)
        low, high = just_outside(params.lowest, params.highest, position.dtype)
        # m * grad in one pass: hardtanh's gradient is 0 at both of its bounds and beyond
        inside: Tensor = torch.ops.aten.hardtanh_backward(grad, position, low, high)
        grad_values = inside.mul_((scale / pre_scale).clamp(max=LARGEST_RATIO))
        grad_pre_scale = grad_scale = grad_offset = None
        clipped = position.clamp_(params.lowest, params.highest)
        if ctx.needs_input_grad[2]:
            grad_pre_scale = -sum_of_products(grad_values, clipped, pre_scale.shape)
        if ctx.needs_input_grad[3]:
            grad_scale = sum_of_products(grad, clipped.round_(), scale.shape)
        if ctx.needs_input_grad[4] and isinstance(params.offset, Tensor):
            grad_offset = (grad - grad_values).sum_to_size(params.offset.shape)
        return grad_values, None, grad_pre_scale, grad_scale, grad_offset


class _QuantizeSTE(torch.autograd.Function):
    """`quantize(.)` relative to `zero_point`, and its straight-through gradient, with u and m as above.

    d code / d values    = m / pre_scale
    d code / d pre_scale = -m * u / pre_scale
    d code / d offset    = -m / pre_scale
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, params: QuantParams, *learned: Tensor | float) -> Tensor:
        del learned
        ctx.save_for_backward(values, params.pre_scale)
        ctx.params = params
        return _position(values, params).clamp_(params.lowest, params.highest).round_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        values, pre_scale = ctx.saved_tensors
        params: QuantParams = ctx.params
        position = _position(values, params)
        low, high = just_outside(params.lowest, params.highest, position.dtype)
        grad_values: Tensor = torch.ops.aten.hardtanh_backward(grad, position, low, high).div_(pre_scale)
        grad_pre_scale = grad_offset = None
        if ctx.needs_input_grad[2]:
            clipped = position.clamp_(params.lowest, params.highest)
            grad_pre_scale = -sum_of_products(grad_values, clipped, pre_scale.shape)
        if ctx.needs_input_grad[3] and isinstance(params.offset, Tensor):
            grad_offset = -grad_values.sum_to_size(params.offset.shape)
        return grad_values, None, grad_pre_scale, grad_offset
