"""Whoever watches a run."""

from typing import Any

from subfour.profit.phases import Phase


class Observer:
    """One who sees everything and does nothing: a subclass overrides what it wants to know of."""

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """A phase begins, or goes on after a resume with `next_epoch` epochs done."""

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """A training step is done; `top1` is the epoch's so far, in percent."""

    def epoch_done(self, record: dict[str, Any]) -> None:
        """An epoch is done; the record is the line in metrics.jsonl."""
