"""A run that is told to end, or dies, in the middle of an epoch goes on at that very step."""

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from subfour.profit.config import RunConfig
from subfour.profit.method import ProfitRun
from subfour.profit.phases import build_phases
from subfour.rundir import RunDirectory
from subfour.train.checkpoint import Checkpoint, CheckpointStore
from subfour.train.interruption import Interruption, Terminated
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import FIRST_FROZEN, SAMPLING, SECOND_FROZEN, Killer, Observer, outcome, start, train, write_images

SNAP = 22

TERM = signal.SIGTERM

MOMENTS = [
    ("float", Killer(phase=0, epoch=0, step=0, signal=TERM)),  # the first checkpoint of all
    ("float", Killer(phase=0, epoch=1, step=1, signal=TERM)),  # every step done, nothing evaluated
    ("stabilize", Killer(phase=1, epoch=0, step=0, signal=TERM)),
    ("finetune", Killer(phase=2, epoch=1, step=0, signal=TERM)),
    ("sample", Killer(phase=SAMPLING, epoch=0, step=0, signal=TERM)),  # with weights before, but no sample yet
    ("sample", Killer(phase=SAMPLING, epoch=1, step=0, signal=TERM)),
    ("sample", Killer(phase=SAMPLING, epoch=1, step=1, signal=TERM)),  # the order follows from what is in the checkpoint
    ("finetune", Killer(phase=FIRST_FROZEN, epoch=0, step=0, signal=TERM)),
    ("finetune", Killer(phase=SECOND_FROZEN, epoch=1, step=0, signal=TERM)),
    ("stabilize", Killer(phase=SECOND_FROZEN + 1, epoch=0, step=1, signal=TERM)),  # statistics not yet computed anew
    ("snap", Killer(phase=SNAP, epoch=0, step=0, signal=TERM)),
]
"""In the order of the run; each takes up the run where the one before left it."""


class TermWhileEvaluating(Observer):
    """Tells its own process to end when the validation of an epoch has begun."""

    def __init__(self, run: ProfitRun, *, evaluation: int) -> None:
        """Count evaluations: of the raw weights, then of the averaged ones, and so on."""
        self.left = evaluation
        loader = run.session.validation
        run.session.__dict__["validation"] = self
        self.loader, self.split, self.errors = loader, loader.split, loader.errors

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images."""
        self.left -= 1
        for batch in self.loader:
            if not self.left:
                signal.raise_signal(TERM)
            yield batch


def newest(folder: Path) -> Checkpoint:
    checkpoint = CheckpointStore(folder / "checkpoints").load_newest()
    assert checkpoint is not None
    return checkpoint


def terminated(folder: Path, config: RunConfig, watch: Callable[[ProfitRun], Observer]) -> None:
    """Train until SIGTERM stops it."""
    interruption = Interruption()
    with interruption.listening(), pytest.raises(Terminated):
        train(folder, config, watch, interruption)


@pytest.mark.slow
def test_a_run_told_to_end_in_every_kind_of_phase_ends_bit_identical(finished: FinishedRun, tmp_path: Path):
    """Each time the checkpoint is of the present step, and metrics.jsonl waits for the epoch's end."""
    folder, phases = tmp_path / "run", build_phases(finished.config)
    for kind, killer in MOMENTS:
        assert phases[killer.phase].kind == kind
        terminated(folder, finished.config, lambda _, killer=killer: killer)
        state = newest(folder).state
        assert (state["phase"], state["next_epoch"]) == (killer.phase, killer.epoch)
        assert state["underway"]["steps"] == killer.step + 1
        assert len(RunDirectory(folder).metrics()) == sum(p.epochs for p in phases[: killer.phase]) + killer.epoch
    train(folder, finished.config)
    assert outcome(folder) == outcome(finished.folder)


def test_a_run_does_not_go_on_with_another_config(finished: FinishedRun, tmp_path: Path):
    """One flipped bit of a learning rate would be another run."""
    folder = tmp_path / "run"
    shutil.copytree(finished.copies[SAMPLING, 0], folder)
    changed = replace(finished.config, schedule=replace(finished.config.schedule, lr=0.06))
    RunDirectory(folder).write_json("config.json", changed.to_json())
    with pytest.raises(ValueError, match=r"config: .+config.json is not what it was when the run began; bring it back"):
        train(folder, changed)


def test_images_left_out_are_counted_in_the_result(finished: FinishedRun, tmp_path: Path):
    """Of training and validation, named, also after a resume."""
    images, folder = tmp_path / "images", tmp_path / "run"
    write_images(images)
    bad = [next((images / split / "3").iterdir()) for split in ("train", "val")]
    for file in bad:
        file.write_bytes(b"no image")
    schedule = replace(finished.config.schedule, finetune_epochs=0, sample_epochs=0, stabilize_epochs=0)
    config = replace(finished.config, schedule=schedule, teacher="none", method="none", snap=False, data=f"folder:{images}")
    with pytest.raises(ValueError, match="image: cannot read"):
        train(folder, config)
    config = replace(config, loading=replace(config.loading, unreadable="skip"))
    terminated(tmp_path / "skipped", config, lambda _: Killer(phase=0, epoch=0, step=0, signal=TERM))
    result = train(tmp_path / "skipped", config)
    assert result["unreadable"] == {"count": 2, "images": sorted(map(str, bad))}
    assert result["rows"][-1]["raw"]["images"] == 39
    assert finished.result["unreadable"] == {"count": 0, "images": []}


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_at_its_last_checkpoint(finished: FinishedRun, tmp_path: Path):
    """With one after every step, SIGKILL costs one step."""
    folder = tmp_path / "run"
    for phase, epoch in ((0, 0), (2, 1), (SAMPLING, 1), (FIRST_FROZEN, 0), (SNAP, 0)):
        process = start(folder, finished.config, Killer(phase, epoch, step=1), checkpoint_minutes=0)
        process.join(timeout=300)
        assert process.exitcode == -signal.SIGKILL
        checkpoint = newest(folder)
        assert (checkpoint.step, checkpoint.state["underway"]["steps"]) == (1, 1)
        assert (checkpoint.state["phase"], checkpoint.state["next_epoch"]) == (phase, epoch)
    train(folder, finished.config, interruption=Interruption(0))
    assert outcome(folder) == outcome(finished.folder)


@pytest.mark.parametrize("evaluation", [1, 2, 3, 4])
def test_sigterm_while_evaluating_loses_nothing(finished: FinishedRun, tmp_path: Path, evaluation: int):
    """Raw and averaged weights, and both again with statistics computed anew; with a rate that changes every step."""
    schedule = replace(finished.config.schedule, float_epochs=1, finetune_epochs=0, sample_epochs=0, stabilize_epochs=0)
    schedule = replace(schedule, update="step")
    config = replace(finished.config, schedule=schedule, teacher="none", method="none", snap=False)
    whole, folder = tmp_path / "whole", tmp_path / "run"
    train(whole, config)
    terminated(folder, config, lambda run: TermWhileEvaluating(run, evaluation=evaluation))
    assert newest(folder).state["underway"]["steps"] == 2
    train(folder, config)
    names = ("weights.safetensors", "model.safetensors")
    assert all((folder / name).read_bytes() == (whole / name).read_bytes() for name in names)
    records = [RunDirectory(path).metrics() for path in (folder, whole)]
    assert [record | {"seconds": 0} for record in records[0]] == [record | {"seconds": 0} for record in records[1]]
