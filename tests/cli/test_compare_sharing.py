"""Several processes train one study."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from subfour.cli import compare
from tests.cli.command import printed, subfour

HOLD = """
import sys
from pathlib import Path
from subfour.rundir import RunDirectory
with RunDirectory.open(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked on Windows")
def test_processes_share_a_study(study: Path, monkeypatch: pytest.MonkeyPatch):
    """What another one trains is left to it, with what starts from there, until it is done or dead."""
    study.write_text(study.read_text().replace("[0, 1]", "[1]"))
    printed("compare", study, "--out", "out")
    shutil.rmtree("out/lsq-w3a4")
    Path("out/float/seed-1/result.json").unlink()
    command = [sys.executable, "-c", HOLD, "out/float/seed-1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        waits: list[list[str]] = []

        def wait(seconds: float) -> None:
            plan = json.loads(printed("compare", study, "--out", "out", "--dry-run", "--json"))
            waits.append([run["state"] for run in plan["runs"]])
            other.kill()
            other.wait()

        monkeypatch.setattr(compare, "sleep", wait)
        outcome = subfour("compare", study, "--out", "out")
    assert outcome.code == 0, outcome.err
    assert waits == [["running", "new"]]
    assert "waiting for other processes: float (seed 1), lsq-w3a4 (seed 1)" in outcome.out
    assert "2 of 2 runs are finished" in Path("out/study.html").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked on Windows")
def test_a_run_that_another_process_takes_up_first_is_left_to_it(study: Path, monkeypatch: pytest.MonkeyPatch):
    """It is unfinished when this one looks, and locked when it would go on."""
    printed("compare", study, "--out", "out")
    Path("out/float/seed-1/result.json").unlink()
    command = [sys.executable, "-c", HOLD, "out/float/seed-1"]
    train = compare.train.run
    others: list[subprocess.Popen[str]] = []

    def late(words: list[str]) -> None:
        if not others:
            others.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            assert others[0].stdout is not None
            others[0].stdout.readline()
        train(words)

    monkeypatch.setattr(compare.train, "run", late)
    monkeypatch.setattr(compare, "sleep", lambda seconds: others[0].communicate("\n"))
    outcome = subfour("compare", study, "--out", "out")
    assert outcome.code == 0, outcome.err
    assert "another process has begun it" in outcome.out
    assert "3 of 3 runs are finished" in Path("out/study.html").read_text()


def test_a_run_that_another_process_begins_first_is_left_to_it(study: Path, monkeypatch: pytest.MonkeyPatch):
    def second(words: list[str]) -> None:
        if not begun:  # both saw that it is new
            begun.append(words)
            train(words)
        train(words)

    begun: list[list[str]] = []
    train = compare.train.run
    monkeypatch.setattr(compare.train, "run", second)
    monkeypatch.setattr(compare, "sleep", lambda seconds: None)
    outcome = subfour("compare", study, "--out", "out")
    assert outcome.code == 0, outcome.err
    assert "another process has begun it" in outcome.out
    assert "3 of 3 runs are finished" in Path("out/study.html").read_text()


def test_a_plan_of_runs_that_one_may_only_read(study: Path):
    printed("compare", study, "--out", "out")
    Path("out/float/seed-1/result.json").unlink()
    (lock := Path("out/float/seed-1/.lock")).unlink()
    plan = json.loads(printed("compare", study, "--out", "out", "--dry-run", "--json"))
    assert [run["state"] for run in plan["runs"]] == ["finished", "unfinished", "finished"]
    assert not lock.exists()
