"""The weight average (EMA) of the whole model state.

    average = decay * average + (1 - decay) * state        floating point entries, after each step
    average = state                                        integer entries (batch counters)

Every entry of the state dict takes part, so no list of names can go stale.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averaged weights beside a model; `lent` lends them to an evaluation."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the model's present state.

        Args:
            model: whose state is averaged; its tensors are read, and written by `lent` alone.
            decay: per step, between 0 and 1; at 0 the average is the model's present state. May be changed later.
        """
        self.decay = decay
        self._model = model
        self._source = dict(model.state_dict())
        self.state: dict[str, Tensor] = {name: value.clone() for name, value in self._source.items()}
        floating = [name for name, value in self._source.items() if value.is_floating_point()]
        self._others = [name for name in self._source if name not in set(floating)]
        self._averages = [self.state[name] for name in floating]
        self._values = [self._source[name] for name in floating]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's present state."""
        torch._foreach_lerp_(self._averages, self._values, 1 - self.decay)
        for name in self._others:
            self.state[name].copy_(self._source[name])

    @torch.no_grad()
    def fill(self) -> None:
        """Take over what had no value (NaN) until now: ranges that were just calibrated."""
        for average, value in zip(self._averages, self._values, strict=True):
            average.copy_(torch.where(average.isnan(), value, average))

    def forget(self, names: Iterable[str]) -> None:
        """Take the value of some floating point entries away until `fill`: ranges that are about to be set anew."""
        for name in names:
            self.state[name].fill_(float("nan"))

    def restart(self) -> None:
        """Set the average to the model's present state."""
        self.load(self._source)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Set the average to a given state, in place."""
        for name, value in self.state.items():
            value.copy_(state[name])

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give the model the averaged state for the length of a `with` block; its own comes back, bit for bit."""
        own = {name: value.clone() for name, value in self._source.items()}
        self._model.load_state_dict(self.state)
        try:
            yield
        finally:
            self._model.load_state_dict(own)
