"""The page about a study: every row, and what the paper's claims come to."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from subfour.profit.alike import data_name
from subfour.profit.comparison import paired_difference
from subfour.report.exhibits.exhibit import Exhibit
from subfour.report.exhibits.rows import rows_exhibit
from subfour.report.expectations import answers
from subfour.report.study import StudyRow, by_network_and_widths
from subfour.report.summary import Card
from subfour.report.template import write_page

SECTIONS = (
    ("summary", "Summary"),
    ("claims", "Claims"),
    ("all-rows", "Rows"),
    ("unfinished", "Diverged and missing"),
    ("reproduce", "Reproduce"),
)

ROW_COLUMNS = (
    *("row", "points lost", "top-1 %", "widths", "seeds", "loss", "minutes a run", "weights MB"),
    *("quantizer", "trained with", "network"),
)

NUMBERS = (("loss", 3), ("minutes", 1), ("megabytes", 3))
"""Columns without a spread, and their digits behind the point."""

MOODS = {"confirmed": "good", "refuted": "bad", "mixed": "warn", "undecided": "warn", "not tested": "plain"}


def write_study_page(study: Path, rows: Sequence[StudyRow], out: Path, *, goals: Mapping[str, float] | None = None) -> Exhibit:
    """Write the page, its figure and the numbers of the figure, and return the figure.

    Args:
        study: the TOML file.
        rows: of it, in its order.
        out: the page; the figure lies beside it, in a folder named after it.
        goals: widths -> points below float that their best row should not lose.

    Raises:
        OSError: a file cannot be written.
    """
    figure = rows_exhibit(rows)
    finished = sum(len(row.records) for row in rows)
    diverged, missing = sum(len(row.diverged) for row in rows), sum(len(row.missing) for row in rows)
    runs = finished + diverged + missing
    write_page(
        "study.html",
        out,
        [figure],
        out.with_name(f"{out.stem}_figures"),
        sections=SECTIONS,
        title=f"subfour compare: {study.stem}",
        heading=f"Study {study.stem}",
        status={"name": "unfinished", "mood": "warn"} if missing else {"name": "finished", "mood": "good"},
        status_words=f"{finished} of {runs} runs are finished, {diverged} diverged, {missing} are missing.",
        what=f"{len(rows)} rows on {_listed(data_name(row.config.data) for row in rows)}; averaged weights of the last epoch, "
        "validation images. A4W4: 4-bit activations and 4-bit weights.",
        cards=_cards(rows, goals or {}),
        answers=answers(rows),
        moods=MOODS,
        figure=figure,
        row_columns=ROW_COLUMNS,
        rows=[_row_line(row) for row in rows],
        failed=[(row.name, seed, reason) for row in rows for seed, reason in row.diverged.items()],
        absent=", ".join(f"{row.name} (seed {_listed(row.missing)})" for row in rows if row.missing),
        command=shlex.join(["subfour", "compare", str(study), "--out", str(out.parent)]),
        commands=[(row.name, row.command) for row in rows],
        run_name=study.name,
    )
    return figure


def _cards(rows: Sequence[StudyRow], goals: Mapping[str, float]) -> list[Card]:
    """Return the best quantized row of each network and widths, among those with most seeds of which none diverged."""
    quantized = [row for row in rows if row.top1 and not row.diverged and not row.config.ends_float]
    cards = []
    for network, widths, members in by_network_and_widths(quantized):
        seeds = max(len(row.top1) for row in members)
        ranked = sorted((row for row in members if len(row.top1) == seeds), key=lambda row: -fmean(row.top1.values()))
        best = ranked[0]
        beside = [f"{best.name}, best of {len(ranked)} with {seeds} {'seed' if seeds == 1 else 'seeds'}"]
        if best.lost:
            lost = fmean(best.lost.values())
            goal = f", goal {goals[widths]:g} {'reached' if lost <= goals[widths] else 'missed'}" if widths in goals else ""
            beside.append(f"{abs(lost):.2f} points {'lost' if lost >= 0 else 'won'} against float{goal}")
        if len(ranked) > 1 and (ahead := paired_difference(best.top1, ranked[1].top1)):
            beside.append(ahead.in_words("points ahead of", "points behind", ranked[1].name))
        cards.append(Card(f"Best at {widths}, {network}", f"{fmean(best.top1.values()):.2f} %", beside))
    return cards


def _row_line(row: StudyRow) -> list[str]:
    numbers = row.numbers
    state = f"{len(row.records)} of {len(row.records) + len(row.diverged) + len(row.missing)}"
    return [
        row.name,
        _with_spread(numbers["lost"], numbers["lost_error"]),
        _with_spread(numbers["top1"], numbers["top1_std"]),
        row.widths,
        state + (", diverged" if row.diverged else ""),
        *("" if numbers[name] is None else f"{numbers[name]:.{digits}f}" for name, digits in NUMBERS),
        "" if row.config.ends_float else row.config.quantizer,
        "" if row.config.ends_float else row.method,
        row.network,
    ]


def _with_spread(value: float | None, spread: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if spread is None else f"{value:.2f} \N{PLUS-MINUS SIGN} {spread:.2f}"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
