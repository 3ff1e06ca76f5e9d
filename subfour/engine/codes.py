"""Batch norm, activation and quantizer in one function from a convolution's output to codes, and its straight-through gradient.

The plain path computes, with xhat the normalised input, p the step (`pre_scale`), d the offset and codes lowest .. highest,

    y = gamma xhat + beta        v = act(y)        u = (v - d) / p        code = round(clip(u, lowest, highest))

What is rearranged here, with g the gradient of a code and m the mask [lowest <= u <= highest]:

    identity, relu    u = (gamma / p) xhat + (beta - d) / p: the step goes into scale and shift before the batch norm, and its
                      gradient falls out of theirs, -(d_scale . scale + d_shift . shift) / p; relu is the clip at 0
    relu6             the same, clipped at min(highest, 6 / p); where that is 6 / p it adds -6 / p^2 * sum(g [u > 6 / p])
    h-swish           not linear: the step has a sum of its own, -sum(g m u) / p

Backward needs u for the mask only, and computes it again from the batch norm's input, which is kept anyway; beside it nothing but
the codes is kept, by the convolution that reads them. The gradient at the kinks of the activation is torch's: 0 at 0 and at 6.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from subfour.engine.chains import Activation
from subfour.ops import QuantParams
from subfour.ops.affine import just_outside, sum_of_products

RELU6_LARGEST = 6.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a batch norm normalises with, and how it goes on."""

    running_mean: Tensor
    running_var: Tensor
    of_batch: bool
    """Whether the batch's own are used, and the running ones follow."""
    momentum: float
    eps: float


@dataclass(frozen=True, slots=True)
class Behind:
    """What a batch norm's output goes through."""

    activation: Activation
    params: QuantParams
    """Of the quantizer; its offset is no tensor."""


def codes_of(values: Tensor, gamma: Tensor, beta: Tensor, statistics: Statistics, behind: Behind) -> Tensor:
    """Return the codes, relative to the zero point, as float.

    Args:
        values: [N, C, H, W], what enters the batch norm.
        gamma: its scale, [C].
        beta: its shift, [C].
        statistics: moved on in place where they are the batch's.
        behind: activation and quantizer.
    """
    function = _HardswishCodes if behind.activation == "hardswish" else _LinearCodes
    return function.apply(values, statistics, behind, gamma, beta, behind.params.pre_scale)  # type: ignore[no-any-return]


class _LinearCodes(torch.autograd.Function):
    """Behind identity, ReLU and ReLU6; see the head of this file."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, statistics: Statistics, behind: Behind, *learned: Tensor) -> Tensor:
        params = behind.params
        gamma, beta, step = learned
        scale, shift = gamma / step, (beta - params.offset) / step
        codes, mean, inverse_std = _normalize(values, scale, shift, statistics)
        ctx.save_for_backward(values, scale, shift, mean, inverse_std, step)
        ctx.statistics = statistics
        ctx.bounds, largest = _linear_ends(behind, values.dtype)
        ctx.saturates = largest < params.highest
        return codes.clamp_(params.lowest, largest).round_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, scale, shift, mean, inverse_std, step = ctx.saved_tensors
        position = _normalized(values, scale, shift, mean, inverse_std)
        beyond = torch.where(position > ctx.bounds[1], grad, 0.0).sum() if ctx.saturates else None
        # Written over the positions, element by element.
        inside = torch.ops.aten.hardtanh_backward.grad_input(grad, position, *ctx.bounds, grad_input=position)
        d_values, d_scale, d_shift = _normalize_backward(inside, values, scale, (mean, inverse_std), ctx.statistics)
        d_step = -(torch.dot(d_scale, scale) + torch.dot(d_shift, shift)) / step
        if beyond is not None:
            d_step -= beyond * ctx.bounds[1] / step
        return d_values, None, None, d_scale / step, d_shift / step, d_step


class _HardswishCodes(torch.autograd.Function):
    """Behind h-swish; see the head of this file."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, statistics: Statistics, behind: Behind, *learned: Tensor) -> Tensor:
        params = behind.params
        gamma, beta, step = learned
        codes, mean, inverse_std = _normalize(values, gamma, beta, statistics)
        ctx.save_for_backward(values, gamma, beta, mean, inverse_std, step)
        ctx.statistics, ctx.params = statistics, params
        positions: Tensor = torch.ops.aten.hardswish_(codes).sub_(params.offset).div_(step)
        return positions.clamp_(params.lowest, params.highest).round_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, gamma, beta, mean, inverse_std, step = ctx.saved_tensors
        params: QuantParams = ctx.params
        before = _normalized(values, gamma, beta, mean, inverse_std)
        activated = torch.ops.aten.hardswish(before)
        inside = torch.ops.aten.hardtanh_backward(grad, activated, *_hardswish_ends(params))
        d_step = (params.offset * inside.sum() - sum_of_products(inside, activated, step.shape)) / step.square()
        torch.ops.aten.hardswish_backward.out(inside, before, out=before)
        # 1 / step is a factor of all three gradients: of the first as part of gamma, of the others afterwards.
        d_values, d_gamma, d_beta = _normalize_backward(before, values, gamma / step, (mean, inverse_std), ctx.statistics)
        return d_values, None, None, d_gamma / step, d_beta / step, d_step


def _linear_ends(behind: Behind, dtype: torch.dtype) -> tuple[tuple[float, float], float]:
    """Return what positions with a gradient lie strictly between, and the largest position before rounding."""
    params = behind.params
    low, high = just_outside(params.lowest, params.highest, dtype)
    largest: float = RELU6_LARGEST / float(params.pre_scale) if behind.activation == "relu6" else params.highest
    saturates = largest < params.highest
    return (low if behind.activation == "identity" else 0.0, largest if saturates else high), min(largest, params.highest)


def _hardswish_ends(params: QuantParams) -> tuple[float, float]:
    """Return what activations with a gradient lie strictly between: u > lowest is v > lowest * p + d.

    The lower end is left out with the upper one; it is the minimum of h-swish, where there is no slope.
    """
    low, high = (float(params.pre_scale) * code + float(params.offset) for code in (params.lowest, params.highest))
    return low, high


def _normalize(values: Tensor, scale: Tensor, shift: Tensor, statistics: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale * xhat + shift, and the mean and 1 / deviation per channel that made xhat."""
    running = statistics.running_mean, statistics.running_var
    normalized, mean, inverse_std = torch.native_batch_norm(
        values, scale, shift, *running, statistics.of_batch, statistics.momentum, statistics.eps
    )
    if not statistics.of_batch:
        mean, inverse_std = running[0].clone(), torch.rsqrt(running[1] + statistics.eps)
    return normalized, mean, inverse_std


def _normalized(values: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
    """Return scale * xhat + shift once more."""
    slope = scale * inverse_std
    intercept = torch.addcmul(shift, mean, slope, value=-1)
    return torch.addcmul(intercept.view(-1, 1, 1), values, slope.view(-1, 1, 1))


def _normalize_backward(
    grad: Tensor, values: Tensor, scale: Tensor, moments: tuple[Tensor, Tensor], statistics: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of values, scale and shift, from that of scale * xhat + shift."""
    running = statistics.running_mean, statistics.running_var
    return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
        grad, values, scale, *running, *moments, statistics.of_batch, statistics.eps, [True, True, True]
    )
