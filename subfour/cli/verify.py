"""`subfour verify FILE --run RUN`: whether runtimes compute what was trained, code by code."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from subfour.cli.arguments import Switch, parse, require_any, require_positive, require_threads
from subfour.cli.console import make_console, print_json
from subfour.cli.tables import print_table
from subfour.export.comparison import Comparison, Extent
from subfour.export.runtime import RUNTIMES, RuntimeName
from subfour.export.verify import verify_file
from subfour.profit.model_file import read_model


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Compare an exported file with the run it came from; exit code 1 if a snapped network is not exact everywhere."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Written by subfour export."""
    run: Path
    """The run directory or model file that it was exported from."""
    data: str | None = None
    """digits, folder:PATH, parquet:PATH or hub:NAME; by default the data it was trained on."""
    split: str | None = None
    """Which split; by default the only one, else validation."""
    images: int | None = None
    """The first so many images; by default all."""
    runtimes: tuple[RuntimeName, ...] = tuple(RUNTIMES)
    """Which to compare."""
    batch_size: int | None = None
    """Images at once; by default 50, and fewer of large ones, because every code of a batch is kept."""
    threads: int = 0
    """Of each runtime; 0 leaves it to the runtime."""
    json: Switch = False
    """Print a JSON object."""


def run(arguments: Sequence[str]) -> None:
    """Print one row per executor."""
    options = parse(VerifyOptions, arguments, prog="subfour verify")
    require_any("runtimes", options.runtimes, such_as=" ".join(RUNTIMES))
    require_positive("images", options.images)
    require_positive("batch_size", options.batch_size)
    require_threads(options.threads)
    trained = read_model(options.run)
    record, comparisons, extents = verify_file(
        options.file,
        trained,
        trained.config.data if options.data is None else options.data,
        split=options.split,
        images=options.images,
        runtimes=options.runtimes,
        batch_size=options.batch_size,
        threads=options.threads,
    )
    exact = all(comparison.exact for comparison in comparisons.values())
    if options.json:
        executors = {name: _as_json(comparison) for name, comparison in comparisons.items()}
        accumulators = {name: {"largest": extent.largest, **extent.bound._asdict()} for name, extent in extents.items()}
        result = {"snapped": record.snapped, "exact": exact, "executors": executors, "accumulators": accumulators}
        print_json(result)
    else:
        _print(f"{options.file}, {'snapped' if record.snapped else 'not snapped'}, beside {options.run}", comparisons)
        if extents:
            _print_extents(extents)
    if record.snapped and not exact:
        sys.exit(1)


def _print_extents(extents: Mapping[str, Extent]) -> None:
    """Print how large integers became, beside what is proven."""
    proven = sum(extent.bound.proven for extent in extents.values())
    name, nearest = max(extents.items(), key=lambda entry: entry[1].largest / entry[1].bound.exact)
    print(
        f"exact in float32 for every image: {proven} of {len(extents)} layers and sums; nearest to its limit: {name}, "
        f"{nearest.largest} of {nearest.bound.exact}{'' if nearest.exact else ', beyond it'}"
    )


def _as_json(comparison: Comparison) -> dict[str, Any]:
    derived = {"exact": comparison.exact, "first_difference": comparison.first_difference}
    return {**asdict(comparison), "top1": 100 * comparison.correct / comparison.images, **derived}


def _print(title: str, comparisons: Mapping[str, Comparison]) -> None:
    columns = ("executor", "top-1 %", "exact images", "other codes", "of", "first", "other parts", "of")
    rows = [
        (
            name,
            f"{100 * comparison.correct / comparison.images:.2f}",
            f"{comparison.exact_images}/{comparison.images}",
            sum(comparison.different_codes.values()) if comparison.codes else None,
            comparison.codes or None,
            comparison.first_difference,
            len(comparison.different_parts) if comparison.parts else None,
            comparison.parts or None,
        )
        for name, comparison in comparisons.items()
    ]
    print_table(make_console(), title, columns, rows)
