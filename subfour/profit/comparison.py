"""The rows of a study compared: mean and spread over seeds, and points lost against the float network of the same seed."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

Result = Mapping[str, Any]
"""Content of a run's result.json."""


def compare_rows(
    results: Mapping[str, Mapping[int, Result | None]], float_rows: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return one row of numbers per row of a study, of averaged weights at the last widths.

    Keys: row, widths, seeds (finished), diverged, top1, top1_std (over seeds; null with fewer than two), loss, lost (points of
    top-1 below the best of its float rows, paired by seed), lost_error (its standard error), minutes (per run), megabytes.

    Args:
        results: row -> seed -> result.json, or None where training diverged.
        float_rows: row -> the rows that its points are lost against.
    """
    return [_compared(row, by_seed, _best(results, float_rows[row])) for row, by_seed in results.items()]


def _best(results: Mapping[str, Mapping[int, Result | None]], rows: Sequence[str]) -> dict[int, float]:
    """Return the best top-1 of some rows, by seed."""
    best: dict[int, float] = {}
    for row in rows:
        for seed, result in results[row].items():
            if result is not None:
                best[seed] = max(best.get(seed, 0.0), _last(result)["averaged"]["top1"])
    return best


def _compared(row: str, by_seed: Mapping[int, Result | None], best_float: Mapping[int, float]) -> dict[str, Any]:
    finished = {seed: result for seed, result in by_seed.items() if result is not None}
    last = {seed: _last(result) for seed, result in finished.items()}
    top1 = {seed: entry["averaged"]["top1"] for seed, entry in last.items()}
    lost = [best_float[seed] - value for seed, value in top1.items() if seed in best_float]
    spread = _spread(list(top1.values()))
    lost_spread = _spread(lost)
    return {
        "row": row,
        "widths": next((entry["widths"] for entry in last.values()), None),
        "seeds": len(finished),
        "diverged": len(by_seed) - len(finished),
        "top1": mean(top1.values()) if top1 else None,
        "top1_std": spread,
        "loss": mean(entry["averaged"]["loss"] for entry in last.values()) if last else None,
        "lost": mean(lost) if lost else None,
        "lost_error": None if lost_spread is None else lost_spread / sqrt(len(lost)),
        "minutes": mean(result["seconds"] / 60 for result in finished.values()) if finished else None,
        "megabytes": mean(entry["bytes"] / 1e6 for entry in last.values()) if last else None,
    }


def _last(result: Result) -> Mapping[str, Any]:
    """Return the numbers at a run's last widths."""
    last: Mapping[str, Any] = result["rows"][-1]
    return last


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None
