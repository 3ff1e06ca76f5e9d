"""Validation losses inside an epoch are looks and nothing more: no weight knows of them, and no kill loses one."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from subfour.rundir import RunDirectory
from tests.profit.conftest import FinishedRun
from tests.profit.test_interruption import TERM, TermWhileEvaluating, newest, terminated
from tests.profit.tiny_run import FIRST_FROZEN, SAMPLING, Killer, outcome, train


@pytest.mark.slow
def test_a_run_that_looks_twice_an_epoch_and_is_stopped_ends_bit_identical(finished: FinishedRun, tmp_path: Path):
    """It may begin to after it was stopped. A look is between two steps, in the phases after sampling; each is there once."""
    folder = tmp_path / "run"
    shutil.copytree(finished.copies[SAMPLING, 0], folder)
    config = replace(finished.config, schedule=replace(finished.config.schedule, evaluations=2))
    RunDirectory(folder).write_json("config.json", config.to_json())
    terminated(folder, config, lambda _: Killer(phase=FIRST_FROZEN, epoch=0, step=0, signal=TERM))
    terminated(folder, config, lambda run: TermWhileEvaluating(run, evaluation=1))
    assert newest(folder).state["underway"]["raw_losses"] == []
    terminated(folder, config, lambda _: Killer(phase=FIRST_FROZEN, epoch=0, step=1, signal=TERM))
    assert len(newest(folder).state["underway"]["raw_losses"]) == 1
    train(folder, config)
    records = RunDirectory(folder).metrics()
    for record in records:
        looks = record.pop("raw_losses", [])
        assert len(looks) == (record["phase"] > SAMPLING)
        assert all(loss != record["raw"]["loss"] for loss in looks)
    plain = RunDirectory(finished.folder).metrics()
    assert [record | {"seconds": 0} for record in records] == [record | {"seconds": 0} for record in plain]
    ended, expected = outcome(folder), outcome(finished.folder)
    for name in ("weights.safetensors", "sensitivity", "result"):
        assert ended[name] == expected[name]
