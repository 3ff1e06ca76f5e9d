"""Consoles that break no line: who pipes or greps gets each line whole, and a terminal wraps by itself."""

import logging

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
