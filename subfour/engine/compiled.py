"""The folded engine's functions in C++ (`kernels.cpp`, `gates.cpp`), compiled where it runs: fewer passes over each tensor.

They compute what `codes.py`, `gates.py`, `weights.py` and `ops/affine.py` define, for float32 on CPUs; anything else falls back
to those. The compiler is called once, by torch, and the result kept in torch's cache of extensions: about a minute. Without a
compiler the engine is the folded one, and a warning says so.
"""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subfour.engine.codes import Behind, Statistics, codes_of, hardswish_ends, linear_ends
from subfour.engine.folded import TORCH, Operations
from subfour.engine.gates import gated_codes, step_gradient
from subfour.engine.weights import scaled_weight
from subfour.ops import QuantParams, quantize_ste
from subfour.ops.affine import LARGEST_RATIO, just_outside

SOURCES = ("kernels.cpp", "gates.cpp")

FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"]

LINEAR, HARDSWISH = 0, 1
"""`Kind` in kernels.cpp."""


@cache
def compiled_operations() -> Operations:
    """Return the compiled operations; those of torch, with a warning, where nothing can be compiled."""
    from torch.utils.cpp_extension import load  # noqa: PLC0415 (slow to import, and it looks for a compiler)

    try:
        kernels = load("subfour_kernels", [str(Path(__file__).with_name(name)) for name in SOURCES], extra_cflags=FLAGS)
    except (OSError, RuntimeError, ImportError) as error:
        warnings.warn(f"engine: compiled is not possible here, folded is used: {error}", stacklevel=2)
        return TORCH

    def codes(values: Tensor, gamma: Tensor, beta: Tensor, statistics: Statistics, behind: Behind) -> Tensor:
        if not _in_rows(values):
            return codes_of(values, gamma, beta, statistics, behind)
        return _Codes.apply(values, kernels, statistics, behind, gamma, beta, behind.params.pre_scale)  # type: ignore[no-any-return]

    def weight(values: Tensor, params: QuantParams, input_scale: Tensor) -> Tensor:
        if params.scale.dim() or not _dense(values):
            return scaled_weight(values, params, input_scale)
        return _Rounded.apply(values, kernels, params, params.pre_scale, params.scale * input_scale)  # type: ignore[no-any-return]

    def quantize(values: Tensor, params: QuantParams) -> Tensor:
        if not _dense(values):
            return quantize_ste(values, params)
        return _Rounded.apply(values, kernels, params, params.pre_scale, torch.ones_like(params.scale))  # type: ignore[no-any-return]

    def gated(values: Tensor, gate: Tensor, params: QuantParams) -> Tensor:
        if not (_in_rows(values) and _dense(gate) and gate.shape == (*values.shape[:2], 1, 1)):
            return gated_codes(values, gate, params)
        return _Gated.apply(values, kernels, params, gate, params.pre_scale)  # type: ignore[no-any-return]

    return Operations(codes, weight, quantize, gated)


def _in_rows(values: Tensor) -> bool:
    """Return whether activations lie in memory as rows of channels, in float32 on a CPU."""
    return _dense(values) and values.is_contiguous(memory_format=torch.channels_last)


def _dense(values: Tensor) -> bool:
    formats = (torch.contiguous_format, torch.channels_last) if values.dim() == 4 else (torch.contiguous_format,)
    return (
        values.dtype == torch.float32
        and values.device.type == "cpu"
        and any(values.is_contiguous(memory_format=memory) for memory in formats)
    )


def _like(grad: Tensor, values: Tensor) -> Tensor:
    """Return a gradient in the memory order of the values."""
    return grad if grad.stride() == values.stride() else torch.empty_like(values).copy_(grad)


class _Codes(torch.autograd.Function):
    """`codes_of`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kernels: Any, statistics: Statistics, behind: Behind, *learned: Tensor) -> Tensor:
        gamma, beta, step = learned
        params, running = behind.params, (statistics.running_mean, statistics.running_var)
        mean, variance = running
        if statistics.of_batch:
            mean, variance = torch.ops.aten.batch_norm_update_stats(values, *running, statistics.momentum)
        inverse_std = torch.rsqrt(variance + statistics.eps)
        if behind.activation == "hardswish":
            kind, scale, shift = HARDSWISH, gamma, beta
            bounds, largest = hardswish_ends(params), float(params.highest)
        else:
            kind, scale, shift = LINEAR, gamma / step, (beta - params.offset) / step
            bounds, largest = linear_ends(behind, values.dtype)
        ctx.kernels, ctx.kind, ctx.of_batch = kernels, kind, statistics.of_batch
        ctx.ends = [*bounds, params.lowest, largest, params.offset, float(step)]
        ctx.saturates = largest < params.highest
        ctx.save_for_backward(values, scale, shift, mean.clone(), inverse_std, step)
        return kernels.codes_forward(values, scale, shift, mean, inverse_std, kind, ctx.ends)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, scale, shift, mean, inverse_std, step = ctx.saved_tensors
        d_values, d_scale, d_shift, extra = ctx.kernels.codes_backward(
            _like(grad, values), values, scale, shift, mean, inverse_std, ctx.of_batch, ctx.kind, ctx.ends
        )
        if ctx.kind == HARDSWISH:
            d_step = -extra / step.square()
        else:
            d_step = -(torch.dot(d_scale, scale) + torch.dot(d_shift, shift)) / step
            if ctx.saturates:
                d_step -= extra * ctx.ends[1] / step
        return d_values, None, None, None, d_scale / step, d_shift / step, d_step


class _Gated(torch.autograd.Function):
    """`gated_codes`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kernels: Any, params: QuantParams, *learned: Tensor) -> Tensor:
        gate, step = learned
        ctx.kernels, ctx.params = kernels, params
        ctx.shift = params.offset / float(step)
        ctx.save_for_backward(values, gate, step)
        return kernels.gated(values, gate / step, ctx.shift, params.lowest, params.highest)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, gate, step = ctx.saved_tensors
        ends = just_outside(ctx.params.lowest, ctx.params.highest, values.dtype)
        d_values, d_slopes, inside = ctx.kernels.gated_backward(_like(grad, values), values, gate / step, ctx.shift, *ends)
        d_gate = d_slopes / step
        return d_values, None, None, d_gate, step_gradient(d_gate, gate, step, ctx.params, inside)


class _Rounded(torch.autograd.Function):
    """round(clip((values - offset) / step)) * scale: `scaled_weight`, and `quantize_ste` at scale 1."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kernels: Any, params: QuantParams, *learned: Tensor) -> Tensor:
        step, scale = learned
        ctx.kernels = kernels
        ctx.ends = [
            *just_outside(params.lowest, params.highest, values.dtype),
            *(params.lowest, params.highest, params.offset, float(step)),
        ]
        ctx.save_for_backward(values, step, scale)
        return kernels.rounded(  # type: ignore[no-any-return]
            values, params.offset, float(step), params.lowest, params.highest, float(scale)
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, step, scale = ctx.saved_tensors
        ratio = min(float(scale / step), LARGEST_RATIO)
        d_values, positions, codes = ctx.kernels.rounded_backward(_like(grad, values), values, ratio, ctx.ends)
        return d_values, None, None, step.new_tensor(-positions * ratio), scale.new_tensor(codes)
