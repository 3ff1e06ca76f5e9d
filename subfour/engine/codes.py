"""Batch norm, activation and quantizer in one function from a convolution's output to codes, and its straight-through gradient.

The plain path computes, with xhat the normalised input, step p = `pre_scale`, offset d and codes lowest .. highest,

    y = gamma xhat + beta        v = act(y)        code = round(clip((v - d) / p, lowest, highest))

What is rearranged here:

    identity, relu    clip(y / p, ...) = clip((gamma / p) xhat + beta / p, ...): 1 / p goes into scale and shift before the batch
    norm, so that the gradient of p falls out of theirs; relu is the clip at 0
    relu6             the same with the clip at min(highest, 6 / p)
    h-swish           is not linear in p: p keeps a sum of its own, d L / d p = -sum(m g u) / p with u the position, m the mask

Backward needs u only for the mask m = [lowest <= u <= highest], and computes it again from the batch norm's input, which is kept
anyway: beside that input the codes alone are kept, by the convolution that reads them. A float network keeps as much.

The activation's own gradient at its kinks is that of torch: 0 at 0 and at 6.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from subfour.ops.affine import just_outside

RELU6_CEILING = 6.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a batch norm normalises with, and how it goes on."""

    running_mean: Tensor
    running_var: Tensor
    of_batch: bool
    """Whether the batch's own are used, and the running ones follow."""
    momentum: float
    eps: float


class ClippedCodes(torch.autograd.Function):
    """round(clip(scale * xhat + shift, lowest, highest)), or below `ceiling` where that is given.

        d code / d (scale * xhat + shift) = m
        d code / d ceiling                = [scale * xhat + shift > ceiling]
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        scale: Tensor,
        shift: Tensor,
        ceiling: Tensor | None,
        lowest: int,
        highest: int,
        rectified: bool,
        statistics: Statistics,
    ) -> Tensor:
        """Return the codes."""
        codes, mean, inverse_std = _normalize(values, scale, shift, statistics)
        ctx.save_for_backward(values, scale, shift, mean, inverse_std, ceiling)
        ctx.statistics, ctx.interior = statistics, just_outside(lowest, highest, values.dtype)
        top = highest if ceiling is None else float(ceiling)
        if rectified:
            ctx.interior = (0.0, ctx.interior[1])
        if ceiling is not None:
            ctx.interior = (ctx.interior[0], top)
        return codes.clamp_(lowest, top).round_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of values, scale, shift and ceiling."""
        values, scale, shift, mean, inverse_std, ceiling = ctx.saved_tensors
        position = _normalized(values, scale, shift, mean, inverse_std)
        grad_ceiling = None
        if ceiling is not None:
            grad_ceiling = torch.where(position > ceiling, grad, 0.0).sum()
        inside = torch.ops.aten.hardtanh_backward.grad_input(grad, position, *ctx.interior, grad_input=position)
        grads = _normalize_backward(inside, values, scale, mean, inverse_std, ctx.statistics)
        return *grads, grad_ceiling, None, None, None, None


class HardswishCodes(torch.autograd.Function):
    """round(clip((hardswish(scale * xhat + shift) - offset) / step, lowest, highest)).

        d code / d (scale * xhat + shift) = m * hardswish' / step
        d code / d step                   = -m * u / step
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        scale: Tensor,
        shift: Tensor,
        step: Tensor,
        offset: float,
        lowest: int,
        highest: int,
        statistics: Statistics,
    ) -> Tensor:
        """Return the codes."""
        codes, mean, inverse_std = _normalize(values, scale, shift, statistics)
        ctx.save_for_backward(values, scale, shift, step, mean, inverse_std)
        ctx.statistics, ctx.offset, ctx.lowest, ctx.highest = statistics, offset, lowest, highest
        return torch.ops.aten.hardswish_(codes).sub_(offset).div_(step).clamp_(lowest, highest).round_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of values, scale, shift and step."""
        values, scale, shift, step, mean, inverse_std = ctx.saved_tensors
        before = _normalized(values, scale, shift, mean, inverse_std)
        position = torch.ops.aten.hardswish(before).sub_(ctx.offset).div_(step)
        interior = just_outside(ctx.lowest, ctx.highest, values.dtype)
        inside = torch.ops.aten.hardtanh_backward(grad, position, *interior)
        # A position may be infinite where the mask is 0, so it is clipped first.
        grad_step = -(inside * position.clamp_(ctx.lowest, ctx.highest)).sum() / step
        torch.ops.aten.hardswish_backward.out(inside, before, out=before)
        # 1 / step is left to scale: the gradient of values has it as a factor, those of scale and shift take it afterwards.
        grads = _normalize_backward(before, values, scale / step, mean, inverse_std, ctx.statistics)
        return grads[0], grads[1] / step, grads[2] / step, grad_step, None, None, None, None


def _normalize(values: Tensor, scale: Tensor, shift: Tensor, statistics: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale * xhat + shift in new memory, and mean and 1 / deviation, per channel, that made xhat."""
    running = statistics.running_mean, statistics.running_var
    normalized, mean, inverse_std = torch.native_batch_norm(
        values, scale, shift, *running, statistics.of_batch, statistics.momentum, statistics.eps
    )
    if not statistics.of_batch:
        mean, inverse_std = running[0], torch.rsqrt(running[1] + statistics.eps)
    return normalized, mean, inverse_std


def _normalized(values: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
    """Return scale * xhat + shift once more."""
    slope = scale * inverse_std
    intercept = torch.addcmul(shift, mean, slope, value=-1)
    return torch.addcmul(intercept.view(-1, 1, 1), values, slope.view(-1, 1, 1))


def _normalize_backward(
    grad: Tensor, values: Tensor, scale: Tensor, mean: Tensor, inverse_std: Tensor, statistics: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of values, scale and shift, from that of scale * xhat + shift."""
    running = statistics.running_mean, statistics.running_var
    return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
        grad, values, scale, *running, mean, inverse_std, statistics.of_batch, statistics.eps, [True, True, True]
    )
