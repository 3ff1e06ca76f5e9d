"""What a forward pass keeps for backward, in bytes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def saved_bytes(network: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor] = torch.sum) -> int:
    """Return the bytes that a forward pass keeps for backward, parameters, buffers and the images apart."""
    known = {value.untyped_storage().data_ptr() for value in (*network.parameters(), *network.buffers(), images)}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(network(images))
    assert value.requires_grad
    return sum(kept.values())
