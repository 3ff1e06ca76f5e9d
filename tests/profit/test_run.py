"""A whole run from Python is the run of the command: the same files, resumed to the same bits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from subfour.profit.config import RunConfig
from subfour.profit.observer import Observer
from subfour.profit.run import go_on, resume, train
from subfour.rundir import RunDirectory
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import outcome, tiny_config, write_images


class Interrupting(Observer):
    """Stops a run when so many epochs are done."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch_done(self, record: dict[str, Any]) -> None:
        self.epochs -= 1
        if not self.epochs:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the finished run had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(finished: FinishedRun, tmp_path: Path):
    """And leaves what the command reads: a plan, an environment, its images."""
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(finished.config, run, observer=Interrupting(12))
    assert not (run / "result.json").exists()
    result = resume(run)
    assert outcome(run)["weights.safetensors"] == outcome(finished.folder)["weights.safetensors"]
    assert [row["widths"] for row in result["rows"]] == [row["widths"] for row in finished.result["rows"]]
    assert {"plan.json", "environment.json", "data.json"} <= {file.name for file in run.iterdir()}
    assert resume(run) == result
    with pytest.raises(ValueError, match="holds"):
        train(finished.config, run)


def test_a_run_that_trains_nothing_is_a_run_too(config: RunConfig, tmp_path: Path):
    config = replace(config, model="subfour/mobilenet_v1", method="data-free", weight_bits=(8,), activation_bits=(8,))
    result = train(config, tmp_path / "run")
    assert [row["widths"] for row in result["rows"]] == ["A32W32", "A8W8"]


def test_a_run_that_goes_on_from_another_starts_at_its_widths(finished: FinishedRun, tmp_path: Path):
    """As the command does; what is wider than these is refused before anything is read."""
    schedule = replace(finished.config.schedule, finetune_epochs=0)
    config = replace(finished.config, from_run=str(finished.folder), method="none", schedule=schedule, snap=False)
    result = train(replace(config, weight_bits=(3,), activation_bits=(3,)), tmp_path / "run")
    assert [row["widths"] for row in result["rows"]] == ["A3W3"]
    with pytest.raises(ValueError, match="weight_bits: 8 is wider than the 3 bits"):
        train(replace(config, data="folder:nowhere"), tmp_path / "wider")


def test_an_image_that_has_gone_bad_meanwhile_can_be_left_out(tmp_path: Path):
    """Though the normalisation was computed with it."""
    images, run = tmp_path / "images", tmp_path / "run"
    write_images(images, per_class=5)
    config = tiny_config(images)
    schedule = replace(config.schedule, finetune_epochs=0, stabilize_epochs=0, sample_epochs=0)
    config = replace(config, schedule=schedule, method="none", snap=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, run, observer=Interrupting(1))
    bad = next((images / "train" / "3").iterdir())
    bad.write_bytes(b"no image")
    with pytest.raises(ValueError, match="image: cannot read"):
        resume(run)
    go_on(RunDirectory.open(run), replace(config, loading=replace(config.loading, unreadable="skip")))
    assert resume(run)["unreadable"] == {"count": 1, "images": [str(bad)]}
