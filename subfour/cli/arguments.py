"""Command-line arguments from typed configurations: options come from the dataclasses, a mistake becomes one line.

Imports no torch, for commands that run without it.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Annotated, TypeVar

import tyro

Parsed = TypeVar("Parsed")

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""Off unless given; no option turns it off again."""

ALIKE = 0.6
"""From this likeness on, of 1, an option is suggested for one that does not exist."""


def parse(options: type[Parsed], arguments: Sequence[str], *, prog: str, default: Parsed | None = None) -> Parsed:
    """Return the options as a value of their class; where help is asked for, print it and exit.

    Raises:
        ValueError: an option does not exist, lacks its value or has one that does not fit; the message names it.
    """
    value: Parsed
    box = io.StringIO()
    given = tyro.MISSING_NONPROP if default is None else default
    try:
        with contextlib.redirect_stderr(box):
            value, unknown = tyro.cli(options, args=list(arguments), prog=prog, default=given, return_unknown_args=True)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_unboxed(box.getvalue())) from None
    if not unknown:
        return value
    first = unknown[0].partition("=")[0]
    if not first.startswith("-"):
        raise ValueError(f"argument: {first!r} is one too many; see {prog} --help")
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"], prog=prog, default=given)
    near = max(re.findall(r"--[a-z][\w.-]*", shown.getvalue()), key=lambda known: _likeness(first, known))
    hint = f"did you mean {near}?" if _likeness(first, near) >= ALIKE else f"see {prog} --help"
    raise ValueError(f"option: there is no {first}; {hint}")


def require_any(name: str, values: Sequence[object], *, such_as: str) -> None:
    """Check that an option which takes several values has been given one.

    Raises:
        ValueError: it has none; without this check, nothing would be done for it.
    """
    if not values:
        raise ValueError(f"{name}: none is named; name one or more, such as {such_as}, or leave the option out")


def require_positive(name: str, *values: int | None) -> None:
    """Check the number or numbers of an option; None, where it is left out, is right.

    Raises:
        ValueError: one is below 1.
    """
    for value in values:
        if value is not None and value < 1:
            raise ValueError(f"{name}: {value} is not possible; use 1 or more")


MOST_THREADS = 1024


def require_threads(threads: int) -> None:
    """Check how many threads a runtime gets.

    Raises:
        ValueError: a negative number, or more than any machine has.
    """
    if not 0 <= threads <= MOST_THREADS:
        raise ValueError(f"threads: {threads} is not possible; use 1 to {MOST_THREADS}, or 0 to leave it to the runtime")


def _unboxed(box: str) -> str:
    """Return what tyro says in the first section of a box, on one line, and how the option is written."""
    _title, *lines = (line.strip("│ ") for line in box.splitlines())
    sections = re.split(r"^[─╰╯-]*$", "\n".join(lines), flags=re.MULTILINE)
    message = next(" ".join(section.split()) for section in sections if section.strip())
    message = re.sub(r"^Error parsing (config[\w.]*: )?", "", message)
    usage = next((line for line in lines if re.match("--[a-z]", line)), None)
    return f"{message.rstrip('.')}; write {usage}" if usage else message


def _likeness(word: str, option: str) -> float:
    """Return how alike two options are, 0 to 1, as a whole or in their last parts: people write --lr for --schedule.lr."""
    pairs = ((word, option), (word.lstrip("-").rpartition(".")[2], option.lstrip("-").rpartition(".")[2]))
    return max(SequenceMatcher(None, *pair).ratio() for pair in pairs)
