"""What the processes of one run (its workers) work out together; with one process, each function here is the identity.

Workers are the ranks of torch.distributed, connected by `train/parallel.py`. All of them call a function at the same place,
and all get the same answer, bit for bit: what they decide by it they decide alike.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def count() -> int:
    """Return how many workers there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this worker, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Return whether this worker is the one that writes and prints."""
    return rank() == 0


def totals(*values: float) -> list[float]:
    """Return the sum of each value over all workers, in float64: counts stay exact."""
    if count() == 1:
        return list(values)
    return summed(torch.tensor(values, dtype=torch.float64)).tolist()


def anyone(flag: bool) -> bool:
    """Return whether any worker says so."""
    return bool(totals(float(flag))[0])


def wait_for_all() -> None:
    """Return when every worker has come here."""
    anyone(False)


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main worker go through a `with` block before the others: what it downloads or lists, they find."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all workers; no gradient flows."""
    return _reduced(values, dist.ReduceOp.SUM)


def smallest(values: Tensor) -> Tensor:
    """Return the minimum of each element over all workers; no gradient flows."""
    return _reduced(values, dist.ReduceOp.MIN)


def gathered(values: Tensor) -> Tensor:
    """Return the tensors of all workers, [workers, ...] in the order of their ranks; no gradient flows."""
    if count() == 1:
        return values.detach()[None]
    there = values.detach().to(_meeting_place()).contiguous()
    parts = [torch.empty_like(there) for _ in range(count())]
    dist.all_gather(parts, there)
    return torch.stack(parts).to(values.device)


def union(names: Sequence[str]) -> list[str]:
    """Return the names that any worker has, sorted."""
    parts: list[Any] = [names]
    if count() > 1:
        parts = [None] * count()
        dist.all_gather_object(parts, list(names))
    return sorted({name for part in parts for name in part})


def from_main(text: str) -> str:
    """Return the text of the main worker."""
    box = [text]
    if count() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def take_from_main(tensors: Sequence[Tensor]) -> None:
    """Set tensors to those of the main worker, in place."""
    if count() > 1:
        for tensor in tensors:
            there = tensor.detach().to(_meeting_place(), copy=True, memory_format=torch.contiguous_format)
            dist.broadcast(there, src=0)
            tensor.detach().copy_(there)


def _reduced(values: Tensor, operation: Any) -> Tensor:
    if count() == 1:
        return values.detach()
    there = values.detach().to(_meeting_place(), copy=True, memory_format=torch.contiguous_format)
    dist.all_reduce(there, operation)
    return there.to(values.device)


def _meeting_place() -> torch.device:
    """Return where the backend exchanges tensors: NCCL on this worker's GPU, gloo in memory."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
