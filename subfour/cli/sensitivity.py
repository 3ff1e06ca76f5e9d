"""`subfour sensitivity RUN`: layers by AIWQ, and the phase in which each was frozen."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from subfour.cli.arguments import parse
from subfour.cli.tables import print_table
from subfour.profit.result import SENSITIVITY_FILE
from subfour.rundir import RunDirectory


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions:
    """Which run."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory."""
    json: bool = False
    """Print a JSON list."""


def run(arguments: Sequence[str]) -> None:
    """Print the layers, the most unstable first."""
    options = parse(SensitivityOptions, arguments, prog="subfour sensitivity")
    directory = RunDirectory.open(options.run)
    if not (options.run / SENSITIVITY_FILE).exists():
        raise ValueError(f"run: {options.run} has not finished a sampling phase, so no AIWQ is known yet")
    rows = directory.read_json(SENSITIVITY_FILE)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("name", "kind", "aiwq", "dropped", "frozen_in_phase")
    print_table(Console(), f"{options.run}: AIWQ, the most unstable first", columns, [[row[c] for c in columns] for row in rows])
