"""The tables of `results/`: CSV files, and what a row says about where its numbers come from."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from subfour.environment import environment

RESULTS = Path(__file__).parent.parent / "results"


def read_rows(table: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; none where there is no file yet."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(table: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write or replace a CSV file; what a row does not have is an empty cell."""
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def provenance() -> dict[str, Any]:
    """Return the columns `date`, `cpu` and `commit` of whatever is measured here and now."""
    here = environment()
    git = here["git"]
    commit = git["commit"] if isinstance(git, Mapping) else None
    return {"date": str(here["date"])[:10], "cpu": here["cpu"], "commit": commit}
