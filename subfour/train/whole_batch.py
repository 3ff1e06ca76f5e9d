"""Batch norm and dropout as one worker has them, where several share a batch; torch's SyncBatchNorm runs on GPUs only.

    mean, var   of each channel over the whole batch: from each worker's count, mean and variance, gathered once
    gradient    that of batch norm over the whole batch: two sums per channel, reduced once
    dropout     each worker draws the mask of the whole batch, and takes its own rows: on CPUs, that of one worker

A network's own modules stay as they are (a batch norm of timm holds the activation too): while `WholeBatch` runs a network, calls
of `F.batch_norm` and `F.dropout` in training mode come here. Both are equal to one worker's within the order of sums. As
all workers draw the same numbers, so does noise on weights (UNIQ) in each of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)
from torch.overrides import TorchFunctionMode

from subfour import collective
from subfour.train.moments import pooled_moments


class WholeBatch(nn.Module):
    """Runs a network on a share of a batch as if all of it were here."""

    def __init__(self, network: nn.Module, *, batchnorm: bool = True) -> None:
        """Wrap a network without changing it.

        Args:
            network: images [N, 3, H, W] -> logits [N, classes].
            batchnorm: whether batch norm too sees the whole batch.
        """
        super().__init__()
        self.network = network
        self.replaced: dict[Callable[..., Any], Callable[..., Tensor]] = {F.dropout: _dropout}
        if batchnorm:
            self.replaced[F.batch_norm] = _batch_norm

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's output for this worker's share of the batch."""
        with _Replaced(self.replaced):
            output: Tensor = self.network(images)
        return output


class _Replaced(TorchFunctionMode):
    """Calls other functions in the place of some."""

    def __init__(self, replaced: Mapping[Callable[..., Any], Callable[..., Tensor]]) -> None:
        super().__init__()
        self.replaced = replaced

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        called: Callable[..., Any] = self.replaced.get(func, func)
        return called(*args, **(kwargs or {}))


def _dropout(values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout`, with this worker's rows of the mask of all."""
    if not training or collective.count() == 1:
        return F.dropout(values, p, training, inplace)
    sizes = collective.gathered(torch.tensor(len(values))).tolist()
    mask = values.new_empty(sum(sizes), *values.shape[1:]).bernoulli_(1 - p).div_(1 - p)
    return values * torch.split(mask, sizes)[collective.rank()]


def _batch_norm(  # noqa: PLR0917 (as `F.batch_norm` is called)
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`, over all workers where it trains."""
    if not training or collective.count() == 1:
        return F.batch_norm(values, running_mean, running_var, weight, bias, training, momentum, eps)
    with torch.no_grad():
        var, mean, count = _moments(values)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
    normalized: Tensor = _Normalize.apply(values, weight, bias, mean.float(), var.float(), count, eps)
    return normalized


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return variance (biased) and mean of each channel over all workers, [C] in float64, and the number of values."""
    own_var, own_mean = torch.var_mean(values.float(), _shared_dims(values), correction=0)
    count = values.numel() / values.shape[1]
    vars_, means, counts = collective.gathered(
        torch.stack([own_var, own_mean, torch.full_like(own_mean, count)]).double()
    ).unbind(1)
    mean, var = pooled_moments(counts, means, vars_)
    return var, mean, counts.sum(0)[0]


class _Normalize(torch.autograd.Function):
    """weight * (values - mean) / sqrt(var + eps) + bias, where mean and var are themselves of the values of all workers."""

    @staticmethod
    def forward(  # noqa: PLR0917 (autograd's way)
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, torch.rsqrt(var + eps))
        ctx.count = count
        return F.batch_norm(values, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, inverse_std = ctx.saved_tensors
        gradient = gradients[0].float()
        dims, per_channel = _shared_dims(values), (1, -1, *[1] * (values.dim() - 2))
        normalized = (values.float() - mean.view(per_channel)) * inverse_std.view(per_channel)
        own = torch.stack([gradient.sum(dims), (gradient * normalized).sum(dims)])
        of_mean, of_std = (collective.summed(own) / ctx.count).float().view(2, *per_channel)
        scale = inverse_std if weight is None else inverse_std * weight
        to_values = (gradient - of_mean - normalized * of_std) * scale.view(per_channel)
        to_weight, to_bias = (None, None) if weight is None else (own[1], own[0])
        return to_values.to(values.dtype), to_weight, to_bias, None, None, None, None


def _shared_dims(values: Tensor) -> list[int]:
    """Return all dimensions but the channels'."""
    return [0, *range(2, values.dim())]
