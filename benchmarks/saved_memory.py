"""What a forward pass keeps for backward, in bytes."""

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
