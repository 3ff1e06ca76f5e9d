"""Runs of every kind, each a few steps long, to be read only."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import ONE_STEP, subfour

RUNS = {
    "finished": "--schedule.finetune-epochs 2",
    "none": "--schedule.finetune-epochs 2 --method none --weight-bits 4 --activation-bits 4",
    "pact": "--schedule.finetune-epochs 2 --quantizer pact-sawb --weight-bits 4 --activation-bits 4 --schedule.lr 0.001",
    "float": "--weight-bits 32 --activation-bits 32",
    "nan": "--schedule.lr 1e25 --weight-bits 4 --activation-bits 4",
}
"""Name -> options."""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the run of a name, trained at its first use."""
    folder = tmp_path_factory.mktemp("runs")

    def trained(name: str) -> Path:
        path: Path = folder / name
        if not path.exists():
            subfour("train", "digits", *ONE_STEP, "--schedule.max-steps", 2, *shlex.split(RUNS[name]), "--out", path)
        return path

    return trained


@pytest.fixture(scope="session")
def cut_off(run: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as a kill leaves it: 20 epochs of the finished one, and no file that comes later."""
    path = tmp_path_factory.mktemp("cut") / "cut"
    path.mkdir()
    for name in ("config.json", "plan.json", "data.json", "environment.json"):
        (path / name).write_bytes((run("finished") / name).read_bytes())
    lines = (run("finished") / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (path / "metrics.jsonl").write_bytes(b"".join(lines[:20]) + lines[20][:40])
    return path
