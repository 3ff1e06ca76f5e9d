"""A record of a run that is JSON still, and not what it was: one line that names it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import error

MORE = {"export": ("--out", "x.onnx"), "--from": ("--weight-bits", 3, "--activation-bits", 3)}


@pytest.mark.parametrize(
    ("name", "key", "commands"),
    [
        ("data.json", "classes", [("cost",), ("report",), ("train", "--resume"), ("train", "--from")]),
        ("data.json", "preprocessing", [("cost",), ("report",), ("train", "--from")]),
        ("result.json", "rows", [("report",), ("export",), ("train", "--resume")]),
        ("sensitivity.json", "kind", [("sensitivity",), ("report",)]),
    ],
)
def test_a_record_without_one_of_its_entries_is_named(
    finished_run: Path, tmp_path: Path, name: str, key: str, commands: list[tuple[str, ...]]
):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    file = run / name
    file.write_text(file.read_text().replace(f'"{key}"', '"another"'))
    for command in commands:
        if (command[-1], name) == ("--resume", "data.json"):
            (run / "result.json").unlink()
        assert error(*command, run, *MORE.get(command[-1], ())).startswith(f"{file}: damaged")


def test_a_value_of_another_kind_is_named(finished_run: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    record = json.loads((run / "data.json").read_text())
    record["preprocessing"]["mean"] = 0.5
    (run / "data.json").write_text(json.dumps(record))
    assert error("cost", run).startswith(f"{run / 'data.json'}: damaged")


def test_a_finished_run_without_its_model_is_not_to_be_finished(finished_run: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "model.safetensors").unlink()
    assert error("evaluate", run) == (
        f"model: the run {run} is finished, but has no model.safetensors any more; bring it back, or name the file"
    )
