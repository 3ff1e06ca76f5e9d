"""A run of two workers is that of one, but for the order of sums; what stops one stops both, and they resume."""

import json
import logging
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from subfour import collective
from subfour.profit.instability_meter import InstabilityMeter
from subfour.rundir import RunDirectory
from subfour.train.checkpoint import Checkpoint, CheckpointStore
from subfour.train.interruption import Interruption, Terminated, WorkerLostError
from tests.profit.conftest import FinishedRun
from tests.profit.quantized_networks import tiny
from tests.profit.shared_run import share
from tests.profit.tiny_run import SNAP, Killer, Observer, same, train
from tests.workers import in_workers

TERM = signal.SIGTERM

STOP = Killer(phase=3, epoch=0, step=0, signal=TERM)
"""After float, stabilize and finetune."""


def newest(folder: Path) -> Checkpoint:
    checkpoint = CheckpointStore(folder / "checkpoints").load_newest()
    assert checkpoint is not None
    return checkpoint


@pytest.fixture(scope="session")
def shared(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two workers; the second one is told to end in its fourth phase. To be copied."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    assert in_workers(2, share, folder, finished.config, {1: STOP}) == ["terminated", "terminated"]
    return folder


def test_losses_and_accuracy_are_those_of_one_worker(shared: Path, finished: FinishedRun):
    """In float to the order of sums; it decides a few codes once there are codes."""
    records = RunDirectory(shared).metrics()
    assert [record["kind"] for record in records] == ["float", "float", "stabilize", "finetune", "finetune"]
    for record, alone in zip(records, RunDirectory(finished.folder).metrics(), strict=False):
        assert record["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-6 if record["kind"] == "float" else 5e-5)
        assert record["raw"]["loss"] == pytest.approx(alone["raw"]["loss"], rel=1e-5)
        assert (record["raw"]["images"], record["raw"]["top1"]) == (alone["raw"]["images"], alone["raw"]["top1"])


def test_a_worker_that_is_told_to_end_takes_the_others_along_at_one_step(shared: Path):
    checkpoint = newest(shared)
    assert (checkpoint.state["phase"], checkpoint.step, checkpoint.state["workers"]) == (3, 1, 2)


def test_a_killed_worker_ends_the_others_and_the_run_resumes_bit_for_bit(shared: Path, finished: FinishedRun, tmp_path: Path):
    killer = Killer(phase=2, epoch=1, step=0, signal=signal.SIGKILL)
    results = in_workers(2, share, tmp_path / "run", finished.config, {1: killer}, 0.0)
    assert [type(result) for result in results] == [WorkerLostError, EOFError]
    assert newest(tmp_path / "run").state["phase"] == 2
    assert in_workers(2, share, tmp_path / "run", finished.config, {1: STOP}) == ["terminated", "terminated"]
    resumed, uninterrupted = newest(tmp_path / "run"), newest(shared)
    assert resumed.tensors.keys() == uninterrupted.tensors.keys()
    assert [name for name, value in resumed.tensors.items() if not same(value, uninterrupted.tensors[name])] == []
    timeless = [{**checkpoint.state, "seconds": 0, "metrics_size": 0} for checkpoint in (resumed, uninterrupted)]
    assert timeless[0] == timeless[1]


def test_two_workers_freeze_the_layers_that_one_freezes(finished: FinishedRun, tmp_path: Path):
    """A whole run with float activations, whose codes are not there to be decided by the order of sums."""
    config = replace(finished.config, activation_bits=(32,), weight_bits=(3,), snap=False)
    for workers in (1, 2):
        in_workers(workers, share, tmp_path / str(workers), config, {})
    alone, shared = (RunDirectory(tmp_path / str(workers)) for workers in (1, 2))
    for record, expected in zip(shared.metrics(), alone.metrics(), strict=True):
        assert record["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
        assert record["frozen_layers"] == expected["frozen_layers"]
        assert record["averaged"]["top1"] == expected["averaged"]["top1"]
    orders, values = (
        [[row[what] for row in run.read_json("sensitivity.json")] for run in (shared, alone)] for what in ("name", "aiwq")
    )
    assert orders[0] == orders[1]
    assert values[0] == pytest.approx(values[1], rel=1e-2, abs=1e-9)
    assert len([value for value in values[0] if value > 1e-7]) >= 4


def test_the_last_row_is_that_of_one_worker(finished: FinishedRun, tmp_path: Path):
    """Of the snapped network."""
    folder = shutil.copytree(finished.copies[SNAP, 0], tmp_path / "run")
    assert in_workers(2, share, folder, finished.config, {}) == ["finished", "finished"]
    result = json.loads((folder / "result.json").read_text())
    row, alone = result["rows"][-1], finished.result["rows"][-1]
    assert (row["widths"], row["snapped"], row["bytes"]) == (alone["widths"], alone["snapped"], alone["bytes"])
    for weights in ("raw", "averaged"):
        assert row[weights]["top1"] == alone[weights]["top1"]
        assert row[weights]["loss"] == pytest.approx(alone[weights]["loss"], rel=1e-4)
    assert result["workers"] == 2


def test_another_number_of_workers_goes_on_and_says_what_that_means(
    shared: Path, finished: FinishedRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = shutil.copytree(shared, tmp_path / "run")
    told = Interruption()
    with caplog.at_level(logging.WARNING, "subfour"), pytest.raises(Terminated):
        train(folder, finished.config, lambda run: Stopping(run.interruption), told)
    assert caplog.messages == [
        "it had 2 workers until now, and has 1 from here on: the run ends equal in distribution, no longer bit for bit"
    ]
    assert newest(folder).state["workers"] == 1


class Stopping(Observer):
    """Asks for an end after the first step."""

    def __init__(self, interruption: Interruption) -> None:
        """Know whom to ask."""
        self.interruption = interruption

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """Ask."""
        self.interruption.requested = True


def sampled(parts: int, stride: int = 1) -> dict[str, float]:
    """Return AIWQ of a network after an update, its batch in parts."""
    model = tiny(4).train()
    torch.manual_seed(0)
    images = torch.randn(12, 3, 32, 32).tensor_split(collective.count())[collective.rank()]
    meter = InstabilityMeter(model, decay=0.9, corrected=True, stride=stride, micro_batches=parts)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    with meter:
        for _ in range(2):
            for part in images.tensor_split(parts):
                model(part)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.1)
    return meter.values()


@pytest.mark.parametrize(
    ("workers", "parts", "stride"),
    [
        (1, 3, 1),
        (2, 1, 1),
        (2, 1, 3),
        pytest.param(5, 2, 1, marks=pytest.mark.slow),
        pytest.param(3, 2, 2, marks=pytest.mark.slow),
    ],
)
def test_a_batch_in_parts_gives_the_sample_of_the_whole(workers: int, parts: int, stride: int):
    """Whoever holds the parts, and of whatever size they are; with every k-th image where k divides them."""
    whole = sampled(1, stride)
    assert max(whole.values()) > 1e-3
    for values in in_workers(workers, sampled, parts, stride):
        assert values == pytest.approx(whole, rel=1e-3, abs=1e-7)
