"""Several observers of a run as one."""

from collections.abc import Sequence
from typing import Any

from subfour.profit.observer import Observer
from subfour.profit.phases import Phase


class Observers(Observer):
    """An observer that tells others, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Name them."""
        self.observers = observers

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.phase_begins(index, phase, frozen, next_epoch)

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.step_done(step, loss, top1)

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.epoch_done(record)
