"""The rows of a study compared: mean and spread over seeds, and points lost against the float network of the same seed."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

Result = Mapping[str, Any]
"""Content of a run's result.json."""

Outcome = Result | Literal["diverged", "missing"]
"""What became of a run: missing until it is finished."""


class Difference(NamedTuple):
    """A mean difference between rows, of runs with the same seed."""

    mean: float
    error: float | None
    """Its standard error; None with one seed."""
    pairs: int

    def in_words(self, above: str, below: str, other: str, digits: int = 2) -> str:
        """Return the difference as part of a sentence, such as "1.50 +- 0.20 points ahead of lsq".

        Args:
            above: what to say where it is positive, before the other row's name.
            below: what to say where it is negative.
            other: name of the other row.
            digits: behind the point.
        """
        error, seeds = (f" \N{PLUS-MINUS SIGN} {self.error:.{digits}f}", "") if self.error is not None else ("", " (one seed)")
        return f"{abs(self.mean):.{digits}f}{error} {above if self.mean >= 0 else below} {other}{seeds}"


def paired_difference(one: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """Return how far one row lies above another, by seed; None where they share none."""
    differences = [one[seed] - other[seed] for seed in one if seed in other]
    if not differences:
        return None
    spread = _spread(differences)
    return Difference(mean(differences), None if spread is None else spread / sqrt(len(differences)), len(differences))


def compare_rows(outcomes: Mapping[str, Mapping[int, Outcome]], float_rows: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return one row of numbers per row of a study, of averaged weights at the last widths.

    Keys: row, widths, seeds (finished), diverged, missing, top1, top1_std (over seeds; null with fewer than two), loss, lost
    (points of top-1 below the best of its float rows, paired by seed), lost_error (its standard error), minutes (per run),
    megabytes, commits (of this package, whose code the runs were trained with).

    Args:
        outcomes: row -> seed -> result.json, or why there is none.
        float_rows: row -> the rows that its points are lost against.
    """
    best_float = {row: _best(outcomes, float_rows[row]) for row in outcomes}
    return [_compared(row, by_seed, best_float[row]) for row, by_seed in outcomes.items()]


def points_lost(outcomes: Mapping[str, Mapping[int, Outcome]], float_rows: Sequence[str], row: str) -> dict[int, float]:
    """Return the points of top-1 that each finished run of a row lies below the best float row of its seed."""
    best = _best(outcomes, float_rows)
    return {seed: best[seed] - value for seed, value in _top1(outcomes[row]).items() if seed in best}


def _best(outcomes: Mapping[str, Mapping[int, Outcome]], rows: Sequence[str]) -> dict[int, float]:
    """Return the best top-1 of some rows, by seed, where none of them is still missing."""
    best: dict[int, float] = {}
    for row in rows:
        for seed, value in _top1(outcomes[row]).items():
            best[seed] = max(best.get(seed, 0.0), value)
    return {seed: value for seed, value in best.items() if all(outcomes[row].get(seed) != "missing" for row in rows)}


def _top1(by_seed: Mapping[int, Outcome]) -> dict[int, float]:
    return {seed: _last(result)["averaged"]["top1"] for seed, result in by_seed.items() if not isinstance(result, str)}


def _compared(row: str, by_seed: Mapping[int, Outcome], best_float: Mapping[int, float]) -> dict[str, Any]:
    finished = [result for result in by_seed.values() if not isinstance(result, str)]
    last = [_last(result) for result in finished]
    top1 = _top1(by_seed)
    lost = paired_difference(best_float, top1)
    return {
        "row": row,
        "widths": next((entry["widths"] for entry in last), None),
        "seeds": len(finished),
        "diverged": list(by_seed.values()).count("diverged"),
        "missing": list(by_seed.values()).count("missing"),
        "top1": mean(top1.values()) if top1 else None,
        "top1_std": _spread(list(top1.values())),
        "loss": mean(entry["averaged"]["loss"] for entry in last) if last else None,
        "lost": None if lost is None else lost.mean,
        "lost_error": None if lost is None else lost.error,
        "minutes": mean(result["seconds"] / 60 for result in finished) if finished else None,
        "megabytes": mean(entry["bytes"] / 1e6 for entry in last) if last else None,
        "commits": " ".join(sorted({commit[:7] for result in finished for commit in result.get("commits") or []})),
    }


def _last(result: Result) -> Mapping[str, Any]:
    """Return the numbers at a run's last widths."""
    last: Mapping[str, Any] = result["rows"][-1]
    return last


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None
