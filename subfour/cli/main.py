"""`subfour COMMAND`: finds the command, and turns an error of the user's into one line and exit code 2."""

import difflib
import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

from rich.console import Console
from rich.logging import RichHandler

COMMANDS = {
    "train": "train a network down to the widths of a recipe, or go on with a run",
    "plan": "print a recipe's phases before anything runs",
    "inspect": "list what a network's quantized layers are and why",
    "evaluate": "accuracy of a run or of a model file",
    "sensitivity": "layers of a run by AIWQ, and when they were frozen",
}
"""Command -> what it does; each is a module of this package with `run(arguments)`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; see `subfour --help`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    errors = Console(stderr=True)
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=errors, show_path=False, show_time=False)]
    )
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        sys.exit(0)
    if words[0] == "--version":
        print(f"subfour {version('subfour')}")
        sys.exit(0)
    try:
        if words[0] not in COMMANDS:
            near = difflib.get_close_matches(words[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
            raise ValueError(f"command: there is no {words[0]!r}; {hint}")
        importlib.import_module(f"subfour.cli.{words[0]}").run(words[1:])
    except (ValueError, OSError, FloatingPointError) as error:
        errors.print(f"subfour: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("subfour: interrupted; go on with: subfour train --resume RUN", style="red", highlight=False, soft_wrap=True)
        sys.exit(130)


def _usage() -> str:
    commands = "\n".join(f"  {name:<12} {what}" for name, what in COMMANDS.items())
    what = "Train MobileNets that run in 4 bits or less."
    return f"usage: subfour COMMAND ...\n\n{what}\n\n{commands}\n\nMore: subfour COMMAND --help"
