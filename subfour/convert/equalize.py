"""DFQ's start: weight ranges are made equal across layers before anything is quantized, without data and without training.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, arXiv:1906.04721,
Sec. 4.1. For two convolutions with batch norm and ReLU between them, W1 with the gain of its batch norm folded in,

    s_i = sqrt(r1_i / r2_i)        r: the largest |w| of output channel i of W1, of input channel i of W2
    W1_i / s_i, W2_i * s_i         the same function, as ReLU(s x) = s ReLU(x); repeated until nothing moves
    c_i = max(0, beta_i - 3 |gamma_i|)        is taken from the first bias and handed to the second (absorption)

ReLU6 is not homogeneous and becomes ReLU first. Never across h-swish, a skip, a squeeze-and-excitation gate or a pool.

The batch norms stay, so that training can go on: after folding each has the mean and variance that its scaled input has, and a
gain of 1. So the weight that is quantized is the folded one, batch norm `unfused` or not. Absorption is exact where x > c, and
away from a border that is padded with 0, as in the paper. Bias correction is in `convert/data_free.py`; training corrects all
biases itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.convert.graph import activation_in, is_foldable, module_of, only_user, operation_of, trace

MOST_SWEEPS = 100
"""Over all pairs."""

SETTLED = 1e-3
"""A sweep in which no scale differs from 1 by more than this is the last."""

ABSORBED_BEYOND = 3
"""Standard deviations of a channel that stay above 0 whatever is absorbed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two convolutions with nothing but batch norm and ReLU between them."""

    first: nn.Conv2d
    norm: _BatchNorm
    second: nn.Conv2d
    second_norm: _BatchNorm | None


def replace_relu6(model: nn.Module) -> None:
    """Exchange every ReLU6 for a ReLU, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.ReLU6):
            model.set_submodule(name, nn.ReLU(inplace=module.inplace), strict=True)


@torch.no_grad()
def equalize(model: nn.Module) -> None:
    """Equalize a float network in place, as in evaluation mode; its ReLU6 become ReLU.

    Args:
        model: not yet converted.

    Raises:
        ValueError: it has no two convolutions to equalize, or cannot be traced.
    """
    replace_relu6(model)
    pairs = find_pairs(model)
    if not pairs:
        raise ValueError("start: dfq finds no two convolutions with batch norm and ReLU between them; use none")
    norms = {id(pair.first): (pair.first, pair.norm) for pair in pairs}
    norms |= {id(pair.second): (pair.second, pair.second_norm) for pair in pairs if pair.second_norm is not None}
    for conv, norm in norms.values():
        _fold(conv, norm)
    for _ in range(MOST_SWEEPS):
        if max(_equalize_pair(pair) for pair in pairs) < SETTLED:
            break
    for pair in pairs:
        _absorb(pair)


def find_pairs(model: nn.Module) -> list[Pair]:
    """Return the pairs to equalize, in the order of the graph."""
    pairs = []
    for node in trace(model).nodes:
        first = module_of(model, node)
        norm_node = only_user(node) if isinstance(first, nn.Conv2d) else None
        norm = module_of(model, norm_node)
        if not (isinstance(first, nn.Conv2d) and is_foldable(norm)) or norm_node is None:
            continue
        relu_node = norm_node if activation_in(norm) == "relu" else only_user(norm_node)
        if relu_node is None or not (relu_node is norm_node or operation_of(relu_node, module_of(model, relu_node)) == "relu"):
            continue
        second_node = only_user(relu_node)
        second = module_of(model, second_node)
        if second_node is None or not isinstance(second, nn.Conv2d):
            continue
        if second.groups > 1 and not second.groups == second.in_channels == second.out_channels:
            continue
        after = module_of(model, only_user(second_node))
        pairs.append(Pair(first, norm, second, after if is_foldable(after) else None))
    return pairs


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """Move the gain of a batch norm into the weight before it; the batch norm is left with a gain of 1."""
    assert norm.running_var is not None
    _scale_channels(conv, norm, norm.weight * torch.rsqrt(norm.running_var + norm.eps))


def _scale_channels(conv: nn.Conv2d, norm: _BatchNorm, gain: Tensor) -> None:
    """Multiply a convolution's channels, and let the batch norm behind it see that mean and variance with a gain of 1."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight.mul_(gain[:, None, None, None])
    if conv.bias is not None:
        conv.bias.mul_(gain)
    norm.running_mean.mul_(gain)
    norm.running_var.mul_(gain.square())
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())


def _equalize_pair(pair: Pair) -> float:
    """Scale the channels between two layers, and return how far the scales were from 1."""
    second = pair.second.weight
    first_range = pair.first.weight.abs().amax((1, 2, 3))
    second_range = second.abs().amax((1, 2, 3) if pair.second.groups > 1 else (0, 2, 3))
    scale = (first_range / second_range).sqrt()
    scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)  # a channel without weights has no range
    _scale_channels(pair.first, pair.norm, 1 / scale)
    pair.norm.bias.div_(scale)
    second.mul_(scale[:, None, None, None] if pair.second.groups > 1 else scale[:, None, None])
    return float((scale - 1).abs().max())


def _absorb(pair: Pair) -> None:
    """Hand on to the second layer what the first bias has beyond three deviations, if there is anything to take it."""
    if pair.second_norm is None and pair.second.bias is None:
        return
    excess = (pair.norm.bias - ABSORBED_BEYOND * pair.norm.weight.abs()).clamp(min=0)
    pair.norm.bias.sub_(excess)
    sums = pair.second.weight.sum((2, 3))
    handed = excess * sums[:, 0] if pair.second.groups > 1 else sums @ excess
    if pair.second_norm is not None:
        assert pair.second_norm.running_mean is not None
        pair.second_norm.running_mean.sub_(handed)
    elif pair.second.bias is not None:
        pair.second.bias.add_(handed)
