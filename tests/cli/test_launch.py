"""`--workers`: one process starts the others, as users do it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from subfour.cli.launch import how_to_resume, start_workers
from subfour.cli.main import LOST, STARTED
from subfour.rundir import RunDirectory
from subfour.train.interruption import WorkerLostError
from tests.cli.command import ONE_STEP, TEN_PHASES, error

SUBFOUR = [sys.executable, "-m", "subfour"]


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_killed_worker_ends_all_and_one_line_says_how_to_go_on(tmp_path: Path):
    run = tmp_path / "run"
    words = ["train", "digits", *ONE_STEP, *TEN_PHASES, "--out", str(run), "--workers", "2"]
    with subprocess.Popen([*SUBFOUR, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        os.kill(children(process.pid)[1], signal.SIGKILL)
        begin = time.monotonic()
        out, err = process.communicate()
    assert time.monotonic() - begin < 60
    hint = f"go on with: subfour train --resume {run} --workers 2"
    # Before it, libraries of the workers that are ended may say that their threads were.
    assert process.returncode == 1
    assert err.splitlines()[-1] == f"subfour: worker 1 was ended by SIGKILL, so the others ended too; {hint}"
    assert "Traceback" not in err
    assert out.count("phase  kind") <= 1  # only the main worker draws; what it had not yet written is lost with it
    assert RunDirectory(run).metrics()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--workers", "0"], "workers: 0 is not possible; use 1 or more"),
        (["--accumulate", "0"], "accumulate: 0 is not possible; use a number greater than 0"),
        (["--accumulate", "100"], "schedule.batch_size: 64 images are too few for 1 workers with 100 parts each"),
        (["--precision", "fp16", "--device", "cpu"], "precision: fp16 is not possible on a CPU"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line(words: list[str], line: str, tmp_path: Path):
    assert error("train", "digits", *words, "--out", tmp_path / "run").startswith(line)
    assert not (tmp_path / "run").exists()


def test_torchrun_and_the_option_do_not_contradict_each_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert error("train", "digits", "--workers", "3") == "workers: torchrun has started 4 already; leave --workers out"


def test_who_started_the_workers_is_who_resumes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert how_to_resume(tmp_path / "a run") == f"go on with: subfour train --resume '{tmp_path}/a run'"
    monkeypatch.setenv(STARTED, "3")
    assert how_to_resume(tmp_path) == f"go on with: subfour train --resume {tmp_path} --workers 3"


def test_a_worker_that_is_not_the_main_one_says_who_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setattr("subfour.cli.main.MAIN_SPEAKS_FIRST", 0)
    assert error("plan", "nothing").startswith("worker 2: recipe: there is no recipe 'nothing'")


def test_workers_that_lost_each_other_end_with_a_line(monkeypatch: pytest.MonkeyPatch):
    """None of them was killed and none says why, so the process that started them does."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    failures = {rank: ProcessFailure(local_rank=rank, pid=1, exitcode=LOST, error_file="") for rank in (0, 1)}

    def fail(*arguments: str) -> None:
        raise ChildFailedError("subfour", failures)

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", lambda config, program: fail)
    for name in (STARTED, "TORCH_CPP_LOG_LEVEL", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(WorkerLostError, match="the workers have lost their connection, and none says why"):
        start_workers(["digits"], 2)
    failures[0] = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file="")
    with pytest.raises(SystemExit) as stop:
        start_workers(["digits"], 2)
    assert stop.value.code == 2
