"""A weight, quantized, times the scale of the codes that it meets: one pass, and a gradient in five.

With step p, scale s, input scale c, codes k = round(clip(w / p)), g the gradient of the result and m the mask of the range:

    result        = k * s c
    d L / d w     = m g * s c / p
    d L / d p     = -sum(d L / d w * w) / p          (plain: sum over m g s u / p with u = w / p)
    d L / d (s c) = sum(g * result) / (s c)          (plain: sum over g k)

The sums read tensors that are there anyway, where the plain path (`ops/affine.py`) makes u and k once more.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from subfour.ops import QuantParams, fake_quantize
from subfour.ops.affine import LARGEST_RATIO, just_outside, sum_of_products


def scaled_weight(weight: Tensor, params: QuantParams, input_scale: Tensor) -> Tensor:
    """Return the quantized weight times the scale of its input.

    Args:
        weight: of any shape.
        params: of its quantizer; offset and zero point are 0.
        input_scale: code-to-value step of the input.
    """
    scale = params.scale * input_scale
    if scale.dim():
        return fake_quantize(weight, replace(params, scale=scale))
    return _ScaledWeight.apply(weight, params.pre_scale, scale, params)  # type: ignore[no-any-return]


class _ScaledWeight(torch.autograd.Function):
    """For a range per layer; see the head of this file."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor, scale: Tensor, params: QuantParams) -> Tensor:
        result = (weight / step).clamp_(params.lowest, params.highest).round_().mul_(scale)
        ctx.save_for_backward(weight, step, scale, result)
        ctx.interior = just_outside(params.lowest, params.highest, weight.dtype)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, step, scale, result = ctx.saved_tensors
        position = weight / step
        d_weight = torch.ops.aten.hardtanh_backward.grad_input(grad, position, *ctx.interior, grad_input=position)
        d_weight.mul_((scale / step).clamp(max=LARGEST_RATIO))
        d_step = -sum_of_products(d_weight, weight, step.shape) / step
        d_scale = sum_of_products(grad, result, scale.shape) / scale
        return d_weight, d_step, d_scale, None
