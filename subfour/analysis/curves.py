"""Loss over the epochs of a run, and how much the validation loss jumps from one epoch to the next.

Fluctuation: the standard deviation of the epoch-to-epoch change of the validation loss (raw weights) in the phases after
sampling, where some runs freeze layers and others do not. A change across the border of two phases is a restart of the
learning rate and does not count. With several seeds the mean curve over them is taken off, so that a common slope does not
count either; with one seed only the mean change can be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One run's loss, epoch by epoch."""

    label: str
    epochs: list[int]
    """Counted over the whole run, from 1."""
    training: list[float]
    validation: list[float]
    """Of the raw weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fluctuation:
    """How much the validation loss jumps."""

    deviation: float
    changes: int
    """Number of epoch-to-epoch changes of each run."""
    runs: int


def loss_curve(label: str, records: Sequence[Mapping[str, Any]]) -> Curve:
    """Return the curve of a run from the records of its metrics.jsonl."""
    return Curve(
        label=label,
        epochs=list(range(1, len(records) + 1)),
        training=[record["train_loss"] for record in records],
        validation=[record["raw"]["loss"] for record in records],
    )


def fluctuation(runs: Sequence[Sequence[Mapping[str, Any]]]) -> Fluctuation | None:
    """Return the fluctuation of one run, or of several that differ in their seed only; None where two changes lack.

    Args:
        runs: the records of each one's metrics.jsonl.
    """
    changes = [_changes(records) for records in runs]
    count = min(map(len, changes))
    changes = [row[:count] for row in changes]
    if count < 2 or not all(math.isfinite(change) for row in changes for change in row):
        return None
    if len(changes) == 1:
        centre = fmean(changes[0])
        squares, freedom = sum((change - centre) ** 2 for change in changes[0]), count - 1
    else:
        centres = [fmean(column) for column in zip(*changes, strict=True)]
        squares = sum((change - centre) ** 2 for row in changes for change, centre in zip(row, centres, strict=True))
        freedom = count * (len(changes) - 1)
    return Fluctuation(deviation=math.sqrt(squares / freedom), changes=count, runs=len(changes))


def _changes(records: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the changes of the validation loss inside each phase after the last sampling phase."""
    sampled = max((record["phase"] for record in records if record["kind"] == "sample"), default=None)
    if sampled is None:
        return []
    return [
        after["raw"]["loss"] - before["raw"]["loss"]
        for before, after in pairwise(records)
        if before["phase"] == after["phase"] and before["phase"] > sampled
    ]
