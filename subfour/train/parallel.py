"""Several workers train one network: each takes its share of every batch, and gradients are averaged.

torchrun starts the workers; accelerate connects them and wraps the network. What they have in common beside gradients goes
through `collective.py`. One process needs none of this, and torch.distributed is not touched.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from subfour import collective
from subfour.train.interruption import WorkerLostError
from subfour.train.whole_batch import WholeBatch

PATIENCE = timedelta(hours=2)
"""How long workers wait for one another: the main one may list and decode, or download, a large data set before the others."""


def workers_started() -> int:
    """Return how many workers torchrun has started, this one included; 0 where it has started none."""
    return int(os.environ.get("WORLD_SIZE", "0")) if "LOCAL_RANK" in os.environ else 0


@contextmanager
def connected(device: str) -> Iterator[None]:
    """Connect the workers that torchrun has started, for the length of a `with` block: by NCCL on GPUs, by gloo on CPUs.

    Args:
        device: "auto", or the name of a device.

    Raises:
        ValueError: workers cannot share such a device.
        WorkerLostError: another worker has gone meanwhile.
    """
    if workers_started() <= 1:
        yield
        return
    from accelerate import InitProcessGroupKwargs, PartialState  # noqa: PLC0415 (slow, and one process needs it not)

    on_gpus = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if not on_gpus and device not in ("auto", "cpu"):
        raise ValueError(f"device: {device!r} is not possible with several workers; use cuda (one GPU for each), cpu or auto")
    here, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    each_its_own = there == 1 and "CUDA_VISIBLE_DEVICES" in os.environ  # as launchers of clusters set it, worker by worker
    if on_gpus and 0 < there < here and not each_its_own:
        raise ValueError(f"workers: {here} need a GPU each, and this machine has {there}; use so many, or --device cpu")
    with noticing_lost_workers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of 1x1 convolutions, channels last
        PartialState(cpu=not on_gpus, **InitProcessGroupKwargs(timeout=PATIENCE).to_kwargs())
        yield
    dist.destroy_process_group()


@contextmanager
def noticing_lost_workers() -> Iterator[None]:
    """Tell errors of the connection from all others.

    Raises:
        WorkerLostError: another worker has gone.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):  # gloo raises a plain RuntimeError
            raise WorkerLostError("another worker has ended, or cannot be reached") from error
        raise


def distributed(network: nn.Module, *, synchronized: bool) -> nn.Module:
    """Return what trains in the place of a network: itself for one worker, else a wrapper that averages gradients.

    Args:
        network: its parameters that require a gradient are what trains; wrap it anew whenever these change.
        synchronized: whether batch norm sees the images of all workers.
    """
    if collective.count() == 1:
        return network
    from accelerate import Accelerator, DistributedDataParallelKwargs  # noqa: PLC0415 (slow)

    # Without find_unused_parameters buckets are laid out anew after the first step, and sum in another order after a resume.
    options = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[options])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # its successor came in torch 2.12
        # Placed by accelerate, on "cpu:0", all tensors would be copies that the weight average and the optimizer do not know.
        wrapped: nn.Module = accelerator.prepare_model(WholeBatch(network, batchnorm=synchronized), device_placement=False)
    return wrapped


def gradients_stay(network: nn.Module) -> AbstractContextManager[None]:
    """Let gradients add up in each worker for the length of a `with` block, because more of the batch is to come."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@torch.no_grad()
def average_statistics(network: nn.Module) -> None:
    """Set the running statistics of every batch norm to their mean over the workers, who saw their own images only; in place."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    if collective.count() == 1 or not statistics:
        return
    mean = collective.summed(torch.cat(statistics)) / collective.count()
    for value, averaged in zip(statistics, torch.split(mean, [len(value) for value in statistics]), strict=True):
        value.copy_(averaged)
