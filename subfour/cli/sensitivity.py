"""`subfour sensitivity RUN`: layers by AIWQ, and the phase in which each was frozen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from subfour.cli.arguments import Switch, parse
from subfour.cli.console import make_console, print_json
from subfour.cli.tables import print_table
from subfour.profit.result import SENSITIVITY_FILE, read_sensitivity
from subfour.rundir import RunDirectory


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions:
    """List the layers of a run by AIWQ, the most unstable first."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run directory."""
    json: Switch = False
    """Print a JSON list; its phases count from 0, as the list of `subfour plan --json` does."""


def run(arguments: Sequence[str]) -> None:
    """Print the layers, the most unstable first."""
    options = parse(SensitivityOptions, arguments, prog="subfour sensitivity")
    directory = RunDirectory.open(options.run)
    if not (options.run / SENSITIVITY_FILE).exists():
        raise ValueError(f"run: {options.run} knows no AIWQ: its sampling phase has not ended, or it has none in its plan")
    layers = read_sensitivity(directory)
    if options.json:
        print_json(layers)
        return
    rows = [
        (layer["name"], layer["kind"], layer["aiwq"], layer["dropped"], "never" if phase is None else f"phase {phase + 1}")
        for layer in layers
        for phase in (layer.get("frozen_in_phase"),)
    ]
    title = f"{options.run}: AIWQ, the most unstable first (dropped: share of the samples)"
    print_table(make_console(), title, ("name", "kind", "AIWQ", "dropped", "frozen from"), rows)
