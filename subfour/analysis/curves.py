"""Loss over the epochs of a run, and how much the validation loss jumps from one evaluation to the next.

Fluctuation: the standard deviation of the change of the validation loss (raw weights) from one evaluation to the next in the
phases after sampling but the first, in which nobody freezes a layer. There is one evaluation per epoch, or several with
`schedule.evaluations`; runs that do not agree in it have no fluctuation together. A change across the border of two
phases is a restart of the learning rate and does not count. With several seeds the mean curve over them is taken off, so that
a common slope does not count either; with one seed only the mean change can be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import fmean
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One run's loss: places in epochs done, counted over the whole run, and the loss there."""

    label: str
    training: list[tuple[float, float]]
    """One per epoch."""
    validation: list[tuple[float, float]]
    """Of the raw weights; one per epoch or more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fluctuation:
    """How much the validation loss jumps."""

    deviation: float
    changes: int
    """Number of changes of each run."""
    runs: int
    freedom: int
    """Degrees of freedom of the deviation."""


def loss_curve(label: str, records: Sequence[Mapping[str, Any]]) -> Curve:
    """Return the curve of a run from the records of its metrics.jsonl."""
    validation = []
    for epoch, record in enumerate(records):
        losses = _losses(record)
        validation += [(epoch + place / len(losses), loss) for place, loss in enumerate(losses, start=1)]
    training = [(float(epoch), record["train_loss"]) for epoch, record in enumerate(records, start=1)]
    return Curve(label=label, training=training, validation=validation)


def fluctuation(runs: Sequence[Sequence[Mapping[str, Any]]]) -> Fluctuation | None:
    """Return the fluctuation of one run, or of several that differ in their seed only; None without two changes each.

    Nor have runs one that differ in their number of changes.

    Args:
        runs: the records of each one's metrics.jsonl.
    """
    changes = [_changes(records) for records in runs]
    count = min(map(len, changes), default=0)
    if (
        count < 2
        or any(len(row) != count for row in changes)
        or not all(math.isfinite(change) for row in changes for change in row)
    ):
        return None
    if len(changes) == 1:
        centre = fmean(changes[0])
        squares, freedom = sum((change - centre) ** 2 for change in changes[0]), count - 1
    else:
        centres = [fmean(column) for column in zip(*changes, strict=True)]
        squares = sum((change - centre) ** 2 for row in changes for change, centre in zip(row, centres, strict=True))
        freedom = count * (len(changes) - 1)
    return Fluctuation(deviation=math.sqrt(squares / freedom), changes=count, runs=len(changes), freedom=freedom)


def _changes(records: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the changes of the validation loss inside each phase after the one that follows the last sampling phase."""
    sampled = max((record["phase"] for record in records if record["kind"] == "sample"), default=None)
    if sampled is None:
        return []
    phases = groupby((record for record in records if record["phase"] > sampled + 1), key=lambda record: record["phase"])
    losses = ([loss for record in phase for loss in _losses(record)] for _, phase in phases)
    return [after - before for phase in losses for before, after in pairwise(phase)]


def _losses(record: Mapping[str, Any]) -> list[float]:
    """Return the validation losses of an epoch; the last one is at its end."""
    return [*record.get("raw_losses", []), record["raw"]["loss"]]
