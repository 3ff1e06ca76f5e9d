"""What a report sees in a run's network is what trained there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from subfour.profit.continuation import WEIGHTS_FILE
from subfour.profit.model_file import TrainedModel, read_model
from subfour.profit.state_dict import read_tensors
from subfour.report.network import look
from subfour.report.record import read_record
from tests.data.builders import write_folder


@pytest.mark.slow
def test_a_weight_s_error_is_that_of_the_weight_before_it_was_rounded(run: Callable[[str], Path]):
    """The model file keeps codes: rounding them again would show no error."""
    trained = read_tensors(run("none") / WEIGHTS_FILE)
    weights = [sample for sample in look(read_record(run("none"))).samples if sample.role == "weight"]
    assert len(weights) > 5
    for sample in weights:
        assert torch.equal(sample.values, trained[f"{sample.layer}.weight"].flatten())
        assert sample.error > 1e-4


def test_a_run_without_its_weights_is_told_to_have_none(run: Callable[[str], Path], tmp_path: Path):
    for file in run("none").iterdir():
        if file.is_file() and file.name != WEIGHTS_FILE:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    found = look(read_record(tmp_path))
    assert not found.samples
    assert WEIGHTS_FILE in found.reason


class AlwaysThree(nn.Module):
    """Answers 3 to any digit."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.full((len(images),), 3), 10).float()


def test_mistakes_are_those_of_the_snapped_network(run: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch):
    """Samples come from the model, whose quantizers are hooked; answers from what is deployed."""
    assert read_model(run("none")).snapping is not None
    monkeypatch.setattr(TrainedModel, "network", AlwaysThree())
    found = look(read_record(run("none")))
    assert found.samples
    assert {mistake.predicted for mistake in found.mistakes} == {"3"}


@pytest.mark.parametrize("unreadable", ["error", "skip"])
def test_an_image_that_cannot_be_read_ends_no_report(run: Callable[[str], Path], tmp_path: Path, unreadable: str):
    """With --loading.unreadable skip it is left out."""
    write_folder(tmp_path, images=5)
    broken, *others = sorted((tmp_path / "val").glob("*/*"))
    broken.write_text("no image")
    record = read_record(run("none"))
    loading = replace(record.config.loading, unreadable=unreadable)
    found = look(replace(record, config=replace(record.config, data=f"folder:{tmp_path}", loading=loading)))
    assert found.images == (len(others) if unreadable == "skip" else 0)
    assert (broken.name in found.reason) == (unreadable == "error")
