"""What a report sees in a run's network is what trained there."""

from collections.abc import Callable
from pathlib import Path

import torch

from subfour.profit.session import WEIGHTS_FILE
from subfour.profit.state import read_tensors
from subfour.report.network import look
from subfour.report.record import read_record


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
