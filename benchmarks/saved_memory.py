"""What a forward pass keeps for backward, and the most that tensors take during a training step, in bytes."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn


def saved_bytes(forward: Callable[[], Tensor], network: nn.Module, images: Tensor) -> int:
    """Return the bytes that a forward pass keeps for backward, the images and the network's own tensors apart."""
    known = {value.untyped_storage().data_ptr() for value in (*network.parameters(), *network.buffers(), images)}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    assert output.requires_grad
    return sum(kept.values())


def peak_bytes(step: Callable[[], None], network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return the most bytes that tensors take at one time during a step, what stays from step to step included.

    It is what torch.cuda.max_memory_allocated counts on a GPU: neither libraries nor what malloc keeps is in it.
    """
    optimizer.zero_grad(set_to_none=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    moments = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    stays = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in (*network.parameters(), *network.buffers(), *moments)
    }
    return sum(stays.values()) + max(itertools.accumulate(changes))
