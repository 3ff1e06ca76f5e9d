import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from subfour.rundir import RunDirectory

CONFIG = {"recipe": "digits", "schedule": {"lr": 0.04, "epochs": [15, 5]}, "seed": 0}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", CONFIG)


def in_another_process(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)


def test_importing_it_does_not_import_torch():
    """A reader of runs starts at once and needs no training install."""
    code = "import subfour.rundir, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_create_makes_the_folder_and_writes_the_config(run: RunDirectory):
    """The resolved config is there before anything trains."""
    assert RunDirectory.open(run.path).read_json("config.json") == CONFIG


def test_create_takes_a_folder_that_is_not_a_run(tmp_path: Path):
    """Somebody's train.log may lie there already."""
    (tmp_path / "train.log").write_text("...")
    RunDirectory.create(tmp_path, CONFIG)


def test_create_refuses_a_run_with_another_config_and_names_the_fields(run: RunDirectory):
    """The message says what differs, dotted, with both values, and what to do."""
    other = {"recipe": "digits", "schedule": {"lr": 0.01, "epochs": [15]}, "model": "tiny"}
    with pytest.raises(ValueError, match="another config") as error:
        RunDirectory.create(run.path, other)
    message = str(error.value)
    assert (
        "schedule.lr (0.04 there, 0.01 here), schedule.epochs ([15, 5] there, [15] here), seed (0 there, absent here)" in message
    )
    assert "and 1 more" in message
    assert f"--resume {run.path}" in message
    assert run.read_json("config.json") == CONFIG


def test_create_refuses_the_same_run_again(run: RunDirectory):
    """Tuples count as the lists they become; the message points to --resume."""
    same = CONFIG | {"schedule": {"lr": 0.04, "epochs": (15, 5)}}
    with pytest.raises(ValueError, match="unfinished; use --resume"):
        RunDirectory.create(run.path, same)
    run.write_json("result.json", {})
    with pytest.raises(ValueError, match=r"[^n]finished; use --resume"):
        RunDirectory.create(run.path, same)


def test_create_refuses_a_file(tmp_path: Path):
    """Neither the path nor a parent may be a file."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="is a file; choose another --out"):
            RunDirectory.create(path, CONFIG)


def test_open_refuses_what_is_not_a_run(tmp_path: Path):
    """A missing folder, and a folder without config.json."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="not a run directory"):
            RunDirectory.open(path)


def test_read_json_names_a_missing_and_a_damaged_file(run: RunDirectory):
    """The message holds the path."""
    with pytest.raises(ValueError, match=r"plan\.json: missing"):
        run.read_json("plan.json")
    for damage in (b'{"a": 1', b"\xff\xfe\xff", b""):
        (run.path / "plan.json").write_bytes(damage)
        with pytest.raises(ValueError, match=r"plan\.json: damaged"):
            run.read_json("plan.json")


def test_json_keeps_text_and_numbers_that_are_not_finite(run: RunDirectory):
    """A class may be called anything; a diverged run must be able to say so."""
    data = {"classes": ["Käfer", "カブトムシ"], "loss": [float("inf"), 0.1]}
    run.write_json("result.json", data)
    assert run.read_json("result.json") == data
    run.append_metrics({"loss": float("nan")})
    assert run.metrics()[0]["loss"] != run.metrics()[0]["loss"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_content_and_nothing_else(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, failing: str):
    """A full disk costs the new content, never the old."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, refuse)
        with pytest.raises(OSError, match="No space"):
            run.write_json("config.json", {"seed": 1})
    assert run.read_json("config.json") == CONFIG
    assert {file.name for file in run.path.iterdir()} == {"config.json", ".lock"}


def test_metrics_come_back_in_order(run: RunDirectory):
    """One record per line; none before the first."""
    assert run.metrics() == []
    assert run.metrics_size == 0
    records = [{"epoch": epoch, "loss": 1 / (epoch + 1)} for epoch in range(3)]
    for record in records:
        run.append_metrics(record)
    assert run.metrics() == records
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records


def test_only_the_last_line_of_metrics_may_be_torn(run: RunDirectory):
    """A kill tears the last line; anything else is damage and is named."""
    run.append_metrics({"epoch": 0})
    file = run.path / "metrics.jsonl"
    with file.open("a") as stream:
        stream.write('{"epoch"')
    assert run.metrics() == [{"epoch": 0}]
    with file.open("a") as stream:
        stream.write('\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2 is damaged"):
        run.metrics()


def test_truncate_drops_what_came_after_a_checkpoint(run: RunDirectory):
    """A resumed run goes on as if never killed, torn line or not."""
    run.append_metrics({"epoch": 0})
    size = run.metrics_size
    run.append_metrics({"epoch": 1})
    with (run.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"ep')
    run.truncate_metrics(size)
    run.append_metrics({"epoch": "1 again"})
    assert run.metrics() == [{"epoch": 0}, {"epoch": "1 again"}]
    run.truncate_metrics(0)
    assert run.metrics() == []


def test_truncate_refuses_a_file_that_lost_lines(run: RunDirectory):
    """Metrics that a checkpoint saw cannot be missing."""
    run.append_metrics({"epoch": 0})
    with pytest.raises(ValueError, match="where the checkpoint saw 1000"):
        run.truncate_metrics(1000)


LOCK = (
    "import sys, pathlib; from subfour.rundir import RunDirectory\nwith RunDirectory.open(pathlib.Path(sys.argv[1])).locked(): "
)


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked on Windows")
def test_a_second_process_cannot_train_into_the_run(run: RunDirectory):
    """It may once the first is through, or dead."""
    with run.locked():
        refused = in_another_process(LOCK + "pass", run.path)
        assert "TakenError" in refused.stderr
        assert "another process trains into it" in refused.stderr
    in_another_process(LOCK + "import os; os.kill(os.getpid(), 9)", run.path)
    with run.locked():
        pass


@pytest.mark.parametrize("write", [lambda run: run.write_json("plan.json", []), lambda run: run.append_metrics({"epoch": 0})])
def test_a_full_disk_is_named_with_the_file_and_what_to_do(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, write: Callable[[RunDirectory], None]
):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left on device; free some space, and go on with --resume") as caught:
        write(run)
    assert Path(caught.value.filename).parent == run.path


def test_two_processes_cannot_begin_in_one_folder_at_once(tmp_path: Path):
    """The second one is refused, and the records of the first are whole."""
    code = """
import sys
from pathlib import Path
from subfour.rundir import RunDirectory
path = Path(sys.argv[1])
path.mkdir()
with RunDirectory(path).locked():
    print("locked", flush=True)
    sys.stdin.readline()
"""
    path = tmp_path / "run"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match="another process trains into it"):
            RunDirectory.create(path, CONFIG, {"plan.json": []})
        assert [file.name for file in path.iterdir()] == [".lock"]
        other.communicate("\n")
    RunDirectory.create(path, CONFIG, {"plan.json": []})


def test_a_file_name_that_is_not_utf_8_can_be_written_down(run: RunDirectory):
    name = os.fsdecode(b"\xe9t\xe9.jpg")
    run.write_json("result.json", {"unreadable": [name]})
    run.append_metrics({"image": name})
    assert run.read_json("result.json") == {"unreadable": [name]}
    assert run.metrics() == [{"image": name}]
