"""Where a command may write: never over what it reads, nor over what a run holds."""

from collections.abc import Sequence
from pathlib import Path

from subfour.cli.study_progress import DIVERGED_FILE
from subfour.durable import file_above
from subfour.environment import ENVIRONMENT_FILE
from subfour.profit.beginning import PLAN_FILE
from subfour.profit.continuation import TEACHER_FILE, WEIGHTS_FILE
from subfour.profit.data_record import DATA_FILE
from subfour.profit.method import FAILURE_FILE
from subfour.profit.model_file import MODEL_FILE
from subfour.profit.progress import CHECKPOINTS
from subfour.profit.result import MODELS, SENSITIVITY_FILE
from subfour.rundir import CONFIG_FILE, RESULT_FILE, is_run

RUN_FILES = {
    *(CONFIG_FILE, PLAN_FILE, "metrics.jsonl", ".lock"),
    *(ENVIRONMENT_FILE, DATA_FILE, RESULT_FILE, SENSITIVITY_FILE, FAILURE_FILE, DIVERGED_FILE),
    *(MODEL_FILE, WEIGHTS_FILE, TEACHER_FILE),
}
"""What training writes into a run directory; reports and exported files may lie beside it."""

RUN_FOLDERS = {CHECKPOINTS, MODELS, "tensorboard"}
"""Those of a run directory, with all that is in them."""


def check_out(out: Path, inputs: Sequence[Path], *, usual: str) -> None:
    """Check that a file may be written.

    Args:
        out: the file.
        inputs: what the command reads.
        usual: name of such a file, to suggest.

    Raises:
        ValueError: it is a folder or a device, lies below a file, is an input, or belongs to a run.
    """
    if out.is_dir():
        raise ValueError(f"out: {out} is a folder; name a file, such as {out / usual}")
    if out.exists() and not out.is_file():
        raise ValueError(f"out: {out} is a device or a pipe, which would be replaced; name a file, such as {usual}")
    check_folder("out", out.parent)
    place = out.resolve()
    if any(place == path.resolve() for path in inputs):
        raise ValueError(f"out: {out} is what is read, and would be lost; name another file, such as {out.with_name(usual)}")
    inside = place.name in RUN_FILES and is_run(place.parent)
    if inside or any(folder.name in RUN_FOLDERS and is_run(folder.parent) for folder in place.parents):
        raise ValueError(f"out: {out} belongs to a run, which would be damaged; name another file, such as {usual}")


def check_folder(name: str, folder: Path) -> None:
    """Check that a folder can be made, or is there.

    Args:
        name: of the option, for the message.
        folder: the folder.

    Raises:
        ValueError: there is a file in its place, or above it.
    """
    if file := file_above(folder):
        raise ValueError(f"{name}: {file} is a file, and cannot hold others; name a folder that is none, or a new one")
