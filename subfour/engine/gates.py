"""The product with a squeeze-and-excitation gate straight to codes, and its straight-through gradient.

With gate s per image and channel, step p (`pre_scale`), offset d, g the gradient of a code and m the mask of the range,

    u = (s / p) v - d / p        code = round(clip(u))

    d L / d v = m g * s / p
    d L / d s = sum(m g v) / p                    over the places that share a gate
    d L / d p = -(sum(s * d L / d s) - d sum(m g) / p) / p        (plain: -sum(m g u) / p)

The product itself is never kept: backward makes u again from v and s, which the network keeps in float too. The step's gradient
falls out of the gate's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from subfour.ops import QuantParams, exact
from subfour.ops.affine import just_outside

GatedCodes = Callable[[Tensor, Tensor, QuantParams], Tensor]
"""(values, gate, quantizer's constants) -> codes."""


def gated_codes(values: Tensor, gate: Tensor, params: QuantParams) -> Tensor:
    """Return the codes of `values * gate`, relative to the zero point, as float.

    Args:
        values: [N, C, H, W].
        gate: [N, C, 1, 1].
        params: of the quantizer; its offset is no tensor.
    """
    return _GatedCodes.apply(values, gate, params.pre_scale, params)  # type: ignore[no-any-return]


class _GatedCodes(torch.autograd.Function):
    """See the head of this file."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gate: Tensor, step: Tensor, params: QuantParams) -> Tensor:
        ctx.save_for_backward(values, gate, step)
        ctx.params = params
        return _position(values, gate, step, params).clamp_(params.lowest, params.highest).round_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, gate, step = ctx.saved_tensors
        params: QuantParams = ctx.params
        position = _position(values, gate, step, params)
        ends = just_outside(params.lowest, params.highest, position.dtype)
        # Written over the positions, element by element.
        inside = torch.ops.aten.hardtanh_backward.grad_input(grad, position, *ends, grad_input=position)
        d_gate = (inside * values).sum_to_size(gate.shape) / step
        of_offset = params.offset * inside.sum() / step if params.offset else 0.0
        d_step = (of_offset - (d_gate * gate).sum()) / step
        return inside.mul_(gate / step), d_gate, d_step, None


def _position(values: Tensor, gate: Tensor, step: Tensor, params: QuantParams) -> Tensor:
    if not params.offset:
        return values * (gate / step)
    return torch.addcmul(-params.offset / step, values, gate / step)


@dataclass(frozen=True, slots=True)
class Factor:
    """A gate on its way to its product, which gives codes: what stands between is the network's own multiplication."""

    gate: Tensor
    params: QuantParams
    """Of the quantizer that reads the product."""
    compute: GatedCodes

    def __mul__(self, values: Tensor) -> Tensor:
        """Return the codes of the product."""
        return self.compute(exact(values), exact(self.gate), self.params)

    __rmul__ = __mul__


class FactorOfGate(nn.Module):
    """The last module of a gate, whose only reader is a product with one reader, a layer on codes."""

    def __init__(self, gate: nn.Module, params: Callable[[], QuantParams], compute: GatedCodes) -> None:
        """Compute what the module computes.

        Args:
            gate: sigmoid or hard-sigmoid.
            params: returns the constants of the layer's activation quantizer in this forward pass.
            compute: makes the codes.
        """
        super().__init__()
        self.gate, self._params, self._compute = gate, params, compute

    def forward(self, values: Tensor) -> Factor:
        """Return the gate as a factor."""
        return Factor(self.gate(values), self._params(), self._compute)
