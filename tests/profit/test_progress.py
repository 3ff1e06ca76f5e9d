"""A run that is killed, wherever it is, goes on as if it had not been; what cannot go on says so and is left as it is."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from subfour.layers import freezable_layers
from subfour.profit import progress
from subfour.profit.config import ProfitConfig
from subfour.profit.method import ProfitRun
from subfour.profit.phases import build_phases
from subfour.profit.state import RunState
from subfour.rundir import RunDirectory
from subfour.train.checkpoint import CheckpointStore
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import (
    FIRST_FROZEN,
    SAMPLING,
    SECOND_FROZEN,
    SNAP,
    Killer,
    KillerBeforeSaving,
    Observer,
    Recorder,
    outcome,
    start,
    train,
)

KILLS = [
    Killer(phase=0, epoch=0, step=1),  # before there is any checkpoint
    Killer(phase=0, epoch=1, step=0),  # with momentum to restore
    Killer(phase=1, epoch=0, step=0),  # just calibrated, teacher just written
    Killer(phase=5, epoch=1, step=1),
    KillerBeforeSaving(phase=11, epoch=0),  # the epoch is in metrics.jsonl and in no checkpoint
    Killer(phase=16, epoch=0, step=1),  # weight ranges just fitted anew
    Killer(phase=SAMPLING, epoch=0, step=1),
    KillerBeforeSaving(phase=SAMPLING, epoch=0),
    Killer(phase=SAMPLING, epoch=1, step=1),  # with running means and previous weights to restore
    KillerBeforeSaving(phase=SAMPLING, epoch=1),  # the order is made, but in no checkpoint
    Killer(phase=SAMPLING, epoch=1),  # right after the epoch that makes the order
    Killer(phase=FIRST_FROZEN, epoch=1, step=0),
    Killer(phase=SECOND_FROZEN, epoch=0, step=0),
    KillerBeforeSaving(phase=21, epoch=0),  # statistics computed anew, but in no checkpoint
    Killer(phase=21, epoch=0),  # right before snapping measures
    Killer(phase=SNAP, epoch=0, step=1),  # measured, and forgotten
    KillerBeforeSaving(phase=SNAP, epoch=0),
    Killer(phase=SNAP, epoch=1, step=1),  # with momentum and what was measured to restore
    Killer(phase=SNAP, epoch=1),  # everything trained, nothing written out
]
"""In the order of the run; each takes up the run where the one before left it."""


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_bit_identical(finished: FinishedRun, tmp_path: Path):
    """Weights, model file, freeze order, AIWQ, every number in metrics.jsonl and result.json: those of the undisturbed run."""
    folder = tmp_path / "run"
    for killer in KILLS:
        process = start(folder, finished.config, killer)
        process.join(timeout=300)
        assert process.exitcode == -signal.SIGKILL, killer
        assert not (folder / "result.json").exists()
    train(folder, finished.config)
    assert outcome(folder) == outcome(finished.folder)


def test_a_run_killed_from_outside_ends_bit_identical(finished: FinishedRun, tmp_path: Path):
    """Wherever it happens to be after some epochs."""
    folder = tmp_path / "run"
    for epochs in (1, 9, 18, 27, 32):
        process = start(folder, finished.config, Observer())
        while process.is_alive() and len(RunDirectory(folder).metrics()) < epochs:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    train(folder, finished.config)
    assert outcome(folder) == outcome(finished.folder)


def test_the_order_is_in_the_checkpoint_of_the_epoch_that_makes_it(finished: FinishedRun):
    """And the means it is made from are in every one before; a resumed run never samples again."""
    within, after = (CheckpointStore(finished.copies[SAMPLING, epoch] / "checkpoints").load_newest() for epoch in (0, 1))
    layers = set(freezable_layers(finished.recorder.run.model))
    assert (within.state["phase"], within.state["next_epoch"], within.state["freeze_order"]) == (SAMPLING, 1, [])
    assert within.state["running"].keys() == layers
    assert {name.removeprefix("previous/") for name in within.tensors if name.startswith("previous/")} == layers
    assert (after.state["phase"], after.state["next_epoch"], after.state["running"]) == (SAMPLING + 1, 0, {})
    rows = json.loads((finished.folder / "sensitivity.json").read_text())
    assert after.state["freeze_order"] == [row["name"] for row in rows]
    assert after.state["instability"] == {row["name"]: row["aiwq"] for row in rows}
    assert not any(name.startswith(("previous/", "momentum/")) for name in after.tensors)


@pytest.mark.parametrize("moment", [(SAMPLING, 1), (FIRST_FROZEN, 0)])
def test_a_damaged_checkpoint_costs_an_epoch_and_changes_nothing(finished: FinishedRun, tmp_path: Path, moment: tuple[int, int]):
    """The one before is used, the epoch is trained again and is in metrics.jsonl once."""
    folder = tmp_path / "run"
    shutil.copytree(finished.copies[moment], folder)
    older, newest = sorted((folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    recorders: list[Recorder] = []

    def watch(run: ProfitRun) -> Recorder:
        recorders.append(Recorder(run, {}))
        return recorders[0]

    train(folder, finished.config, watch)
    assert recorders[0].phases[0].phase == build_phases(finished.config)[SAMPLING if moment[0] == SAMPLING else FIRST_FROZEN]
    assert outcome(folder) == outcome(finished.folder)
    assert not older.exists()


def test_with_every_checkpoint_damaged_nothing_begins_anew(finished: FinishedRun, tmp_path: Path):
    """An error, and the files stay."""
    folder = tmp_path / "run"
    shutil.copytree(finished.copies[SAMPLING, 0], folder)
    for file in (folder / "checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="every checkpoint in it is damaged"):
        train(folder, finished.config)
    assert len(list((folder / "checkpoints").iterdir())) == 2
    assert len(RunDirectory(folder).metrics()) > 0


def test_an_edited_configuration_is_refused(finished: FinishedRun, tmp_path: Path):
    """Before its model is compared with the checkpoint's, which could say less."""
    folder = tmp_path / "run"
    shutil.copytree(finished.copies[SAMPLING, 0], folder)
    other = replace(finished.config, quantizer="pact-sawb", profit=ProfitConfig())
    RunDirectory(folder).write_json("config.json", other.to_json())
    with pytest.raises(ValueError, match=r"config: .*config\.json is not what it was when the run began; bring it back"):
        train(folder, other)


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished: FinishedRun, tmp_path: Path):
    """Its result is written again, the same."""
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    train(folder, finished.config)
    assert outcome(folder) == outcome(finished.folder)
    assert len(RunDirectory(folder).metrics()) == 34


def test_more_threads_than_cores_are_not_taken_up(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """A run that goes on on a smaller machine says what that means; one on a larger machine keeps its threads."""
    here = torch.get_num_threads()
    monkeypatch.setattr(progress, "usable_cores", lambda: here)
    state = RunState(threads=here + 30)
    progress._resume_workers(state)
    assert (state.threads, torch.get_num_threads()) == (here, here)
    assert f"it had {here + 30} threads until now, more than this machine has cores: the run ends equal in" in caplog.text
