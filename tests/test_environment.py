import json
import subprocess
import sys
from pathlib import Path

import pytest

from subfour.environment import commits, environment, note_resumption
from subfour.rundir import RunDirectory


def test_environment_says_what_the_numbers_depend_on():
    """It is JSON, holds versions, and its commit is this checkout's."""
    found = json.loads(json.dumps(environment()))
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["numpy"] is not None
    assert found["cores"] >= 1
    assert found["cpu"]
    assert found["date"].endswith("+00:00")
    if found["git"] is not None:
        root = Path(__file__).parents[1]
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        assert found["git"]["commit"] == head.strip()
        assert found["git"]["dirty"] in (True, False)


def test_a_run_knows_every_commit_that_computed_it(tmp_path: Path):
    """The one it began with and those it went on with, each once; an installed package has none."""
    states = [{"commit": "a", "dirty": False}, {"commit": "b", "dirty": False}, None, {"commit": "a", "dirty": True}]
    first, *later = [{"git": state} for state in states]
    run = RunDirectory.create(tmp_path / "run", {}, {"environment.json": first | {"resumed": later}})
    assert commits(run) == ["a", "b"]
    note_resumption(run)
    assert len(run.read_json("environment.json")["resumed"]) == 4


def test_packages_that_bring_quantizers_are_recorded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("subfour.environment.distributions", lambda: {"pytest"})
    assert environment()["packages"]["pytest"] == pytest.__version__
