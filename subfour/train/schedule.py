"""The learning rate over one phase: linear warm-up, cosine, or constant.

Source: the authors' train_ts.py: 3 warm-up epochs from 0.1x, then a cosine to 0.001x, restarted in each phase; stabilize
phases have no warm-up, the sampling phase has a constant rate; the rate changes once per epoch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

WARMUP_START = 0.1
"""Share of the base rate that warm-up starts from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineSchedule:
    """Warm-up and cosine over the epochs of one phase."""

    epochs: int
    warmup_epochs: float
    final_scale: float
    per_epoch: bool = False
    """Whether only whole positions are asked for."""

    def scale(self, position: float) -> float:
        """Return the factor on the base rate.

        Args:
            position: epochs since the phase began, 0 <= position < epochs; fractions are allowed.
        """
        # A phase shorter than its warm-up still has an epoch of cosine, or most of its only one. With a rate per epoch few are
        # taken from the curve, and from three on the last should be a low one.
        longest = (self.epochs + 1) // 3 if self.per_epoch else max(self.epochs - 1, self.epochs / 4)
        warmup = min(self.warmup_epochs, longest)
        if position < warmup:
            return WARMUP_START + (1 - WARMUP_START) * position / warmup
        progress = (position - warmup) / (self.epochs - warmup)
        return self.final_scale + (1 - self.final_scale) * 0.5 * (1 + math.cos(math.pi * progress))


def constant(position: float) -> float:
    """Return 1 at every position: the sampling phase."""
    del position
    return 1.0


RateSchedule = Callable[[float], float]
"""Epochs since the phase began -> factor on the base learning rate."""
