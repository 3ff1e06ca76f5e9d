"""Tables of documents, made from `results/` and put between their markers: runs, study, speed.

`record.py` renews them; a test fails when they are not what the files say.
"""

import re
import shlex
from pathlib import Path

from table import RESULTS, read_rows

ROOT = Path(__file__).parent.parent
ACCURACY = RESULTS / "accuracy.csv"
STUDY = RESULTS / "study-cifar10" / "table.csv"
INFERENCE = RESULTS / "inference.csv"
CONTROL = "-float-control"
"""Ends the name of a run's control: `--keep-phases` with every width 32."""
DECIDING_SEEDS = 3
"""Seeds of the study's rows that are compared."""
STUDY_WIDTHS = ("A4W4", "A3W3", "A2W2")


def results_table() -> str:
    """Return the table of runs, in Markdown: of each its float network and its last widths."""
    runs: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(ACCURACY):
        runs.setdefault(row["name"], []).append(row)
    if not runs:
        return "No rows yet."
    lines = ["| run | float top-1 % | widths | top-1 % | points lost | weights MB | minutes |", "|---|---|---|---|---|---|---|"]
    for name, rows in sorted(runs.items()):
        if name.endswith(CONTROL):
            continue
        last, reference = rows[-1], float_top1(rows, runs)
        lost = f"{float(reference) - float(last['top1']):.2f}" if reference else ""
        size = f"{int(last['bytes']) / 1e6:.3f}"
        cells = (name, reference, last["widths"], last["top1"], lost, size, last["minutes"])
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Every pair of widths on the way, with command, commit, seed and hardware: `results/accuracy.csv`."]
    return "\n".join(lines)


def float_top1(rows: list[dict[str, str]], runs: dict[str, list[dict[str, str]]]) -> str:
    """Return the accuracy of the float network that a run's rows began from, also through `--from`; empty if unknown.

    Where there is a control, a float network trained as long with the same teacher, it is that of the better of the two.
    """
    if rows[0]["widths"] == "A32W32":
        trained_on = runs.get(f"{rows[0]['name']}{CONTROL}", [])
        return max((row["top1"] for row in (rows[0], *trained_on) if row["widths"] == "A32W32"), key=float)
    words = shlex.split(rows[0]["command"])
    before = Path(words[words.index("--from") + 1]).name if "--from" in words else ""
    return float_top1(runs[before], runs) if before in runs else ""


def study_table() -> str:
    """Return the study's rows of several seeds, in Markdown: points lost against float at each pair of widths."""
    found: dict[str, dict[str, str]] = {}
    for row in read_rows(STUDY):
        if row["widths"] in STUDY_WIDTHS and int(row["seeds"]) >= DECIDING_SEEDS:
            name = re.sub(r"-w\da\d$", "", row["row"])
            found.setdefault(name, {})[row["widths"]] = f"{float(row['lost']):.2f} +- {float(row['lost_error']):.2f}"
    lines = [f"| row | {' | '.join(STUDY_WIDTHS)} |", "|---" * (1 + len(STUDY_WIDTHS)) + "|"]
    lines += [f"| {name} | {' | '.join(lost.get(widths, '') for widths in STUDY_WIDTHS)} |" for name, lost in found.items()]
    return "\n".join(lines)


def speed_table() -> str:
    """Return milliseconds per batch in Markdown: executors by row, networks and batches by column."""
    cells: dict[str, dict[str, str]] = {}
    for row in read_rows(INFERENCE):
        column = f"{row['network'].partition('/')[2]}, batch {row['batch']}"
        cells.setdefault(row["executor"], {})[column] = f"{float(row['milliseconds']):.1f}"
    columns = list(next(iter(cells.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {name} | {' | '.join(times[column] for column in columns)} |" for name, times in cells.items()]
    return "\n".join(lines)


TABLES = {
    "results": (ROOT / "README.md", results_table),
    "study": (ROOT / "README.md", study_table),
    "speed": (ROOT / "docs" / "export.md", speed_table),
}
"""Name between the markers -> document, and what makes the table."""


def marked(name: str, table: str) -> str:
    """Return a table between its markers."""
    return f"<!-- {name}:begin -->\n{table}\n<!-- {name}:end -->"


def renew_tables() -> None:
    """Put every table between its markers."""
    for name, (document, table) in TABLES.items():
        head, _, rest = document.read_text().partition(f"<!-- {name}:begin -->")
        document.write_text(head + marked(name, table()) + rest.partition(f"<!-- {name}:end -->")[2])
