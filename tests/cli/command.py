"""The command line in this process: what it prints and how it exits."""

import contextlib
import io
import json
import shlex
from typing import NamedTuple

from subfour.cli.main import main
from subfour.cli.summary import label

ONE_STEP = shlex.split(
    "--schedule.max-steps 1 --schedule.float-epochs 1 --schedule.finetune-epochs 1 --schedule.stabilize-epochs 1 "
    "--schedule.sample-epochs 1 --schedule.snap-epochs 1 --average.reestimate-batches 1 "
    "--calibration-batches 1 --loading.workers 0"
)
"""Options that make every phase of a recipe one epoch of one step."""

TEN_PHASES = ["--weight-bits", "4", "--activation-bits", "4"]
"""Options that leave a recipe one width: float, A4W32, A4W4; ten phases, and an eleventh that snaps."""

SHORT = [*ONE_STEP, *TEN_PHASES]
"""Both: eleven steps."""


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def subfour(*words: object, encoding: str = "utf-8") -> Outcome:
    """Run a command; an exception that would be a traceback is one here too."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
    out.seek(0)
    return Outcome(code, out.read(), err.getvalue())


def printed(*words: object) -> str:
    """Return what a command that succeeds prints."""
    outcome = subfour(*words)
    assert outcome.code == 0, outcome.err
    return outcome.out


def error(*words: object, encoding: str = "utf-8") -> str:
    """Return the message of a command that is refused: one line, exit code 2, nothing else."""
    outcome = subfour(*words, encoding=encoding)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("subfour: ")
    assert outcome.err.count("\n") == 1
    return outcome.err.removeprefix("subfour: ").rstrip("\n")


def train(*words: object, recipe: str = "digits") -> dict[str, object]:
    """Train a step of each phase and return the result."""
    result: dict[str, object] = json.loads(printed("train", recipe, *SHORT, *words, "--json"))
    return result


def widths(result: dict[str, object]) -> list[str]:
    """Return the pairs of widths that a result has rows of, snapped or not."""
    return [label(row) for row in result["rows"]]
