"""A whole run from Python is the run of the command: the same files, resumed to the same bits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from subfour.profit.config import RunConfig
from subfour.profit.observer import Observer
from subfour.profit.run import resume, train
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import outcome


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
