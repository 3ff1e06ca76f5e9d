"""`subfour report RUN [RUN...]`: one HTML page that shows what a run did, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from subfour.cli.arguments import parse
from subfour.cli.console import make_console
from subfour.cli.outputs import check_folder, check_out
from subfour.report.page import write_report
from subfour.rundir import RunDirectory

PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write a page about a run, finished or not, and compare it with others."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories: the first is told in full. One with another --method or --quantizer is drawn beside it, one that
    differs in its seed only sharpens the fluctuation, a float control is what points are lost against."""
    out: Path | None = None
    """The page; by default report.html in the first run directory."""
    figures: Path | None = None
    """Folder for the figures as SVG and CSV; by default beside the page."""


def run(arguments: Sequence[str]) -> None:
    """Write the page and say where it lies."""
    options = parse(ReportOptions, arguments, prog="subfour report")
    if not options.runs:
        raise ValueError("run: name at least one run directory, such as: subfour report runs/digits")
    for path in options.runs:
        RunDirectory.open(path)
    out = options.out or options.runs[0] / PAGE
    check_out(out, options.runs, usual=PAGE)
    if options.figures is not None:
        check_folder("figures", options.figures)
    exhibits = write_report(options.runs, out, options.figures)
    console = make_console()
    drawn = sum(bool(exhibit.svg) for exhibit in exhibits)
    console.print(f"{out}: {drawn} figures; open it in a browser")
