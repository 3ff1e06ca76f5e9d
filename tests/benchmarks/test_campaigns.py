"""Short versions of the fault campaigns; `results/` has the totals of long ones."""

import runpy
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_damaged_files_are_refused_and_nothing_in_them_runs(tmp_path: Path):
    """A few of every kind."""
    script = runpy.run_path(str(BENCHMARKS / "bench_faults.py"))
    counts = script["campaign"](60, 1, tmp_path)
    total = sum(counts.values(), Counter())
    assert [total[outcome] for outcome in script["FORBIDDEN"]] == [0, 0, 0]
    assert total["refused"] > total.total() / 2
    assert all(count.total() > 0 for count in counts.values())


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_the_same(tmp_path: Path):
    """Three kills of the shortest run that has every kind of phase."""
    script = runpy.run_path(str(BENCHMARKS / "bench_kills.py"))
    options = [*script["SHORT_RECIPE"], *script["SHORT_RUN"]]
    counts, runs, different = script["campaign"](3, options, 0.02, 0, tmp_path)
    assert counts.total() >= 3
    assert (runs >= 1, different) == (True, 0)
