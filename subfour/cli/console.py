"""What commands print: lines that are not broken, and JSON.

Who pipes or greps gets each line whole, and a terminal wraps by itself.
"""

import json
import logging
import math
from typing import Any

from rich.console import Console


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console for lines; nothing in them is taken for markup or coloured by content."""
    return Console(stderr=stderr, quiet=quiet, soft_wrap=True, markup=False, highlight=False, emoji=False)


class Messages(logging.Handler):
    """Log records as lines of the program's own."""

    def __init__(self, console: Console) -> None:
        """Name the console."""
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; warnings say so."""
        warns = record.levelno >= logging.WARNING
        self.console.print(f"subfour: {'warning: ' if warns else ''}{record.getMessage()}", style="yellow" if warns else None)


def print_json(data: Any) -> None:
    """Print plain values as JSON; a number that is not finite, which JSON does not know, becomes null."""
    print(json.dumps(_finite(data), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
