"""Short versions of the fault campaigns; `results/` has the totals of long ones."""

import re
import sys
from collections import Counter
from pathlib import Path

import bench_kills
import pytest
from faults import strangers, targets
from faults.campaign import FORBIDDEN, campaign

from subfour.export.runtime import read_file
from tests.export.files import content_of


@pytest.mark.slow
def test_damaged_files_are_refused_and_nothing_in_them_runs(tmp_path: Path):
    """A few of every kind."""
    counts = campaign(60, 1, tmp_path)
    total = sum(counts.values(), Counter())
    assert [total[outcome] for outcome in FORBIDDEN] == [0, 0, 0]
    assert total["refused"] > total.total() / 2
    assert all(count.total() > 0 for count in counts.values())


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Return a file as a run would have given it, with weights of nobody."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content_of("subfour/tiny_mobilenet_v3", snapped=True))
    return path


def test_every_stranger_but_another_network_is_refused_by_its_path(exported: Path):
    for name, content in strangers.strangers(exported).items():
        exported.write_bytes(content)
        if name == strangers.ANOTHER:
            read_file(exported)
            continue
        with pytest.raises(ValueError, match=f"^model: {re.escape(str(exported))}[ :]"):
            read_file(exported)


def test_a_command_that_takes_a_changed_file_counts_as_silent(exported: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(targets, "printed", lambda *words: "the same table")
    before = targets.read_exported(exported.parent, "benchmark")
    exported.write_bytes(exported.read_bytes() + b"\0")
    assert targets.read_exported(exported.parent, "benchmark") != before


@pytest.mark.parametrize(
    ("code", "said", "ends_in"),
    [
        (2, "subfour: {file} is damaged", ValueError),
        (2, "subfour: warning: slow\nsubfour: {file} is damaged", ValueError),
        (2, "subfour: something is damaged", AssertionError),
        (2, "subfour: {file} is damaged\nand more", AssertionError),
        (1, "subfour: {file} is damaged", AssertionError),
    ],
)
def test_only_one_line_that_names_the_file_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str, ends_in: type[Exception]
):
    def refuse(words: list[str]) -> None:
        sys.stderr.write(said.format(file=tmp_path / "model.onnx"))
        sys.exit(code)

    monkeypatch.setattr(targets.command_line, "main", refuse)
    with pytest.raises(ends_in):
        targets.read_exported(tmp_path, "predict")


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_the_same(tmp_path: Path):
    """Three kills of the shortest run that has every kind of phase."""
    options = [*bench_kills.SHORT_RECIPE, *bench_kills.SHORT_RUN]
    log = bench_kills.campaign(3, options, 0.002, 0, tmp_path)
    assert len(log.hits) == 3
    assert log.endings
    assert not any(log.endings)
