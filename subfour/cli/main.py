"""`subfour COMMAND`: finds the command, and turns an error of the user's into one line and exit code 2."""

import difflib
import importlib
import io
import logging
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from rich.console import Console

from subfour.cli.console import Messages, make_console
from subfour.train.interruption import Terminated, WorkerLostError
from subfour.train.memory import memory_explained

COMMANDS = {
    "train": "train a network down to a recipe's widths, or go on with a run",
    "plan": "print a recipe's phases before anything runs",
    "inspect": "list what a network's quantized layers are and why",
    "evaluate": "accuracy of a run or of a model file",
    "compare": "train the rows of a study, and compare them",
    "cost": "operations, size and memory of a network or a run",
    "report": "one page that shows what a run did, and why",
    "sensitivity": "layers of a run by AIWQ, and when they were frozen",
    "export": "write a run as a file for integer runtimes",
    "verify": "compare an exported file with its run, code by code",
    "benchmark": "time an exported file beside float and int8 of the same network",
    "predict": "classify images with an exported file; needs no torch",
}
"""Command -> what it does; each is a module of this package with `run(arguments)`."""

STARTED = "SUBFOUR_WORKERS"
"""Environment variable of workers that `--workers` has started: how many. Whoever started them says why they stopped."""

LOST = 75
"""Exit code of such a worker that stopped because another one had gone: none of the codes with which one says why."""

MAIN_SPEAKS_FIRST = 5.0
"""Seconds that another worker waits with an error: where the main one has it too, torchrun ends this one before it repeats it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; see `subfour --help`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show is no reason to fail
    errors = make_console(stderr=True)
    package = logging.getLogger("subfour")
    package.handlers = [Messages(errors)]
    package.setLevel(logging.INFO)
    try:
        _run(*(words or ["--help"]))
        if sys.stdout is not None:  # closed by whoever started this
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has closed, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, FloatingPointError, MemoryError, ModuleNotFoundError) as error:
        _leave(errors, _in_one_line(error), 2)
    except (KeyboardInterrupt, Terminated, WorkerLostError) as stop:
        words, code = {KeyboardInterrupt: (["interrupted"], 130), Terminated: (["terminated"], 143)}.get(type(stop), ([], 1))
        if "RANK" in os.environ and STARTED in os.environ:
            sys.exit(LOST if isinstance(stop, WorkerLostError) else code)
        _leave(errors, "; ".join([*words, *stop.args]), code)


def worker_number() -> int:
    """Return which of the workers that torchrun has started this process is; 0, as the main one, where it has started none."""
    return int(os.environ.get("RANK", "0"))


def _leave(errors: Console, line: str, code: int) -> NoReturn:
    """Say why, and exit; a worker that is not the main one lets that one speak."""
    worker = worker_number()
    if worker:
        time.sleep(MAIN_SPEAKS_FIRST)
    errors.print(f"subfour: {f'worker {worker}: ' if worker else ''}{line}", style="red")
    sys.exit(code)


def _run(command: str, *arguments: str) -> None:
    if command in ("-h", "--help"):
        print(_usage())
    elif command == "--version":
        print(f"subfour {version('subfour')}")
    elif command in COMMANDS:
        with memory_explained():
            importlib.import_module(f"subfour.cli.{command}").run(arguments)
    else:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
        raise ValueError(f"command: there is no {command!r}; {hint}")


def _in_one_line(error: Exception) -> str:
    """Return what an error says, and what to do about it where it does not know."""
    if isinstance(error, ModuleNotFoundError):
        message = f"{error.name} is not installed; install what training needs with: pip install '.[train]', in subfour's folder"
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        message = str(error) or type(error).__name__
    return " ".join(message.split())


def _usage() -> str:
    commands = "\n".join(f"  {name:<12} {what}" for name, what in COMMANDS.items())
    what = "Train MobileNets that run in 4 bits or less."
    return f"usage: subfour COMMAND ...\n\n{what}\n\n{commands}\n\nMore: subfour COMMAND --help"
