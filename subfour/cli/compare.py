"""`subfour compare STUDY`: the runs of a study, one after another, and one table, one figure and one page of what came out.

All three are written anew after each run. Each run is a run directory like any other, below --out. What is finished is skipped,
what was interrupted goes on, and a run that collapsed (profit/collapse.py: not finite, a range at zero, accuracy at chance) is a
row that diverged: it does not stop the others, and those that were to start from it have diverged with it. Nor does a run that
cannot start: it is named at the end, and tried again the next time.
"""

import csv
import gc
import io
import logging
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Annotated, Any

import torch
import tyro

from subfour.cli import train
from subfour.cli.arguments import Switch, parse
from subfour.cli.console import make_console, print_json
from subfour.cli.display import duration
from subfour.cli.outputs import check_folder
from subfour.cli.study import Study, StudyRun, read_study
from subfour.cli.study_progress import (
    State,
    divergence,
    divergence_of,
    is_timed,
    result_of,
    seconds_left,
    start_diverged,
    state_of,
)
from subfour.cli.tables import print_table
from subfour.durable import TakenError, locked, write_atomically
from subfour.listing import listed
from subfour.profit.comparison import Outcome, compare_rows, points_lost
from subfour.report.record import read_record
from subfour.report.study import StudyRow
from subfour.report.study_page import write_study_page
from subfour.rundir import RunDirectory, is_run
from subfour.train.interruption import Terminated, WorkerLostError

logger = logging.getLogger(__name__)

TABLE_FILE = "table.csv"
"""Below --out: one line per row of the study."""

PAGE_FILE = "study.html"
"""Below --out: the page; its figure beside it in `study_figures`."""

POLL_SECONDS = 5.0
"""How often to look whether another process has ended its run."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Train the rows of a study one after another, and compare them."""

    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """A TOML file; CONTRIBUTING.md shows one."""
    out: Path | None = None
    """Folder of the runs, the table and the page; by default runs/NAME-OF-THE-FILE."""
    dry_run: Switch = False
    """List the runs and how long they will take, and stop."""
    json: Switch = False
    """Print the table, or with --dry-run the list, as JSON; progress goes to standard error."""


def run(arguments: Sequence[str]) -> None:
    """Train what is missing, write the page and print the table."""
    options = parse(CompareOptions, arguments, prog="subfour compare")
    out = options.out or Path("runs") / options.study.stem
    check_folder("out", out)
    study = read_study(options.study, out)
    states = [state_of(entry) for entry in study.runs]
    if options.dry_run:
        _print_plan(study, states, as_json=options.json)
        return
    _warn_of_other_rows(study, out)
    _write(study, options.study, out)
    try:
        refused = _train_all(study, options.study, out, quiet=options.json)
    except (KeyboardInterrupt, Terminated) as stop:  # they say how to go on with the one run that was under way
        place = f" --out {shlex.quote(str(options.out))}" if options.out is not None else ""
        raise type(stop)(f"go on with: subfour compare {shlex.quote(str(options.study))}{place}") from None
    table = _write(study, options.study, out)
    if options.json:
        print_json(table)
    else:
        print_table(make_console(), f"{out / PAGE_FILE}: mean over seeds", list(table[0]), [list(row.values()) for row in table])
    if refused:
        others = f" (and {len(refused) - 1} more runs, named above)" if len(refused) > 1 else ""
        raise ValueError(f"study: {refused[0]}{others}")


def _warn_of_other_rows(study: Study, out: Path) -> None:
    """Say so where the folder holds rows of another study, or earlier ones of this: table and page are of this one's rows."""
    rows = {run.row for run in study.runs}
    others = sorted({run.parent.name for run in out.glob("*/seed-*") if is_run(run)} - rows)
    if others:
        logger.warning("out: %s holds rows that this study has not, and table and page leave them out: %s", out, listed(others))


def _train_all(study: Study, file: Path, out: Path, *, quiet: bool) -> list[str]:
    """Train every run that is new or unfinished, and return why some cannot start."""
    progress = make_console(stderr=quiet)
    refused: list[str] = []
    runs = list(enumerate(study.runs, start=1))
    waiting: list[tuple[int, StudyRun]] = []
    while runs:
        elsewhere: list[tuple[int, StudyRun]] = []
        for number, entry in runs:
            state = state_of(entry)
            if state in ("finished", "diverged"):
                continue
            if state == "running" or any(entry.continues(run) for _, run in elsewhere):
                elsewhere.append((number, entry))
                continue
            left = seconds_left(study, [state_of(run) for run in study.runs])
            time = f" ({duration(sum(left))} of training left)" if left else ""
            progress.print(f"\nrun {number} of {len(study.runs)}: {entry.row}, seed {entry.seed}{time}", style="bold")
            try:
                _train(entry, state, study, quiet=quiet)
            except TakenError:
                progress.print("another process has begun it")
                elsewhere.append((number, entry))
            except (OSError, WorkerLostError):
                raise
            except Exception as error:  # one row's quantizer or network must not stop the others
                words = str(error)
                if not isinstance(error, ValueError | MemoryError):
                    words = f"{type(error).__name__}: {error}"
                    progress.print(traceback.format_exc(), markup=False)
                progress.print(f"it cannot run: {words}", style="bold red", markup=False)
                refused.append(f"{entry.row}, seed {entry.seed}: {words}")
            _write(study, file, out)
        if elsewhere:
            if elsewhere != waiting:
                names = listed([f"{entry.row} (seed {entry.seed})" for _, entry in elsewhere])
                progress.print(f"\nwaiting for other processes: {names}")
            sleep(POLL_SECONDS)
        runs = waiting = elsewhere
    return refused


def _train(entry: StudyRun, state: State, study: Study, *, quiet: bool) -> None:
    """Begin a run, or go on with it."""
    if state == "new" and start_diverged(entry, study):
        reason = f"its start diverged: {entry.config.from_run}"
        RunDirectory.create(entry.path, entry.config.to_json(), divergence(reason))
        return
    words = ["--resume", str(entry.path)] if state == "unfinished" else entry.arguments
    threads = torch.get_num_threads()  # a run that goes on takes as many as before
    try:
        with redirect_stdout(sys.stderr) if quiet else nullcontext():
            train.run(words)
    except FloatingPointError as error:
        for name, record in divergence(str(error)).items():
            RunDirectory.open(entry.path).write_json(name, record)
    finally:
        torch.set_num_threads(threads)
        gc.collect()  # a run's objects know each other, and hold decoders and images until they are found


def _print_plan(study: Study, states: Sequence[State], *, as_json: bool) -> None:
    """Print every run with its state and the time that is left."""
    left = seconds_left(study, states)
    each: Sequence[float | None] = left or [None] * len(states)
    lines: list[dict[str, Any]] = [
        {
            "row": entry.row,
            "seed": entry.seed,
            "state": state,
            "epochs": entry.epochs,
            "seconds": seconds,
            "command": entry.command,
        }
        for entry, state, seconds in zip(study.runs, states, each, strict=True)
    ]
    total = None if left is None else sum(left)
    timed = is_timed(study, states)
    if as_json:
        source = None if left is None else "finished runs" if timed else "seconds_per_epoch"
        print_json({"runs": lines, "seconds": total, "seconds_from": source})
        return
    if total is None:
        time = "of an unknown time: no run is finished, and the study has no seconds_per_epoch"
    else:
        source = "as the finished ones" if timed else f"at {study.seconds_per_epoch:g} s an epoch, as the study says"
        time = f"{duration(total)} of training left ({source})"
    rows = [(*list(line.values())[:4], None if left is None else duration(line["seconds"]), line["command"]) for line in lines]
    columns = ("row", "seed", "state", "epochs", "time left", "command")
    print_table(make_console(), f"{len(lines)} runs, {time}", columns, rows)


def _write(study: Study, file: Path, out: Path) -> list[dict[str, Any]]:
    """Write table, figure and page of what is known by now, and return the table."""
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, wait=True):
        return _write_alone(study, file, out)


def _write_alone(study: Study, file: Path, out: Path) -> list[dict[str, Any]]:
    outcomes: dict[str, dict[int, Outcome]] = {}
    for entry in study.runs:
        state = state_of(entry)
        ended: Outcome = result_of(entry) if state == "finished" else "diverged" if state == "diverged" else "missing"
        outcomes.setdefault(entry.row, {})[entry.seed] = ended
    table = compare_rows(outcomes, study.float_rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_atomically(out / TABLE_FILE, text.getvalue().encode())
    rows = []
    for numbers in table:
        entries = [entry for entry in study.runs if entry.row == numbers["row"]]
        ends = outcomes[numbers["row"]]
        rows.append(
            StudyRow(
                name=numbers["row"],
                config=entries[0].config,
                numbers=numbers,
                lost=points_lost(outcomes, study.float_rows[numbers["row"]], numbers["row"]),
                records={entry.seed: read_record(entry.path) for entry in entries if not isinstance(ends[entry.seed], str)},
                diverged={entry.seed: divergence_of(entry) for entry in entries if ends[entry.seed] == "diverged"},
                missing=[entry.seed for entry in entries if ends[entry.seed] == "missing"],
                command=entries[0].command,
            )
        )
    write_study_page(file, rows, out / PAGE_FILE, goals=study.goals)
    return table
