"""The examples run, stay short, and leave behind what ARCHITECTURE.md lists."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RUN_DIRECTORY = (ROOT / "ARCHITECTURE.md").read_text().partition("## A run directory\n")[2].partition("\n## ")[0]
LONGEST = 60


def run_example(name: str, argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run an example as a script, and return what it prints."""
    monkeypatch.setattr(sys, "argv", [name, argument])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_is_short(file: Path):
    assert len(file.read_text().splitlines()) < LONGEST


def test_quantize_lists_every_layer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    printed = run_example("01_quantize.py", "torchvision/mobilenet_v3_small", monkeypatch, capsys)
    assert "8-bit image" in printed
    assert "-0.375" in printed
    assert "54 layers, logits [16, 10]" in printed


@pytest.mark.slow
def test_profit_digits_learns_and_leaves_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    printed = run_example("02_profit_digits.py", str(tmp_path / "run"), monkeypatch, capsys)
    assert "finetune A4W4, 10 layers frozen" in printed
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["rows"]
    assert [row["widths"] for row in rows] == ["A32W32", "A4W32", "A4W4", "A4W4"]
    assert [row["snapped"] for row in rows] == [False, False, False, True]
    assert "\nA4W4 snapped: top-1 " in printed
    assert rows[-1]["averaged"]["top1"] > 80

    listed = set(re.findall(r"^\| `([\w./]+)`", RUN_DIRECTORY, re.MULTILINE))
    left = {entry.name + "/" * entry.is_dir() for entry in (tmp_path / "run").iterdir()}
    of_commands = {"plan.json", "tensorboard/", "report.html", "diverged.json"}
    assert listed - left == {*of_commands, "failure.json"}
    assert left <= listed

    keys = re.search(r"A record of metrics.jsonl:\n\n(.*?)\n\n", RUN_DIRECTORY, re.DOTALL)[1].split()
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert list(record) == keys
    assert list(record["raw"]) == ["top1", "top5", "loss", "images"]
