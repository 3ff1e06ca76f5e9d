import errno
import os
import shlex
import subprocess
import sys

import pytest

from subfour.cli import plan
from tests.cli.command import error, printed, subfour

SUBFOUR = [sys.executable, "-c", "from subfour.cli.main import main; main()"]


def test_without_a_command_it_names_all_of_them():
    usage = printed()
    assert usage == printed("--help")
    assert all(f"\n  {command} " in usage for command in ("train", "plan", "inspect", "evaluate", "compare", "sensitivity"))


def test_it_knows_its_version():
    assert printed("--version").startswith("subfour ")


def test_an_unknown_command_suggests_the_near_one():
    assert error("trainn", "digits") == "command: there is no 'trainn'; did you mean train?"
    choices = "train, plan, inspect, evaluate, compare, cost, report, sensitivity, export, verify, benchmark, predict"
    assert error("xyz").endswith(f"choose from {choices}")


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (ValueError("data: two\n  lines"), "data: two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a/plan.json"), "runs/a/plan.json: No space left on device"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (FloatingPointError("phase 1: the loss is nan"), "phase 1: the loss is nan"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "torch is not installed; install what training needs with: pip install '.[train]', in subfour's folder",
        ),
    ],
)
def test_an_error_of_the_users_is_one_line_and_exit_code_2(raised: Exception, line: str, monkeypatch: pytest.MonkeyPatch):
    def run(arguments: object) -> None:
        raise raised

    monkeypatch.setattr(plan, "run", run)
    assert error("plan") == line


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def run(arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(plan, "run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        subfour("plan")


def test_an_interrupted_command_exits_with_130(monkeypatch: pytest.MonkeyPatch):
    def run(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "run", run)
    assert subfour("plan") == (130, "", "subfour: interrupted\n")


def test_a_reader_who_leaves_early_sees_no_traceback():
    """As in `subfour --help | head -1`: the pipe is closed before anything is written."""
    with subprocess.Popen([*SUBFOUR, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_help_needs_no_torch():
    """So that a base install answers at once."""
    check = f"{SUBFOUR[-1].removesuffix('main()')} main([]); import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_what_an_output_cannot_show_is_no_reason_to_fail():
    """A class of another alphabet, on a terminal that knows none but its own."""
    code = "import sys; from subfour.cli.main import main; sys.argv = ['subfour', '--version']; main(); print('犬')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
    assert shown.endswith("\\u72ac\n")


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix closes the output")
def test_a_closed_output_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m subfour --version >&-"
    assert subprocess.run(command, shell=True, capture_output=True, check=False).returncode == 0
