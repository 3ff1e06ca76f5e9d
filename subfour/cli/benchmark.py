"""`subfour benchmark FILE`: how fast an exported file runs here, beside float and standard int8 of the same network."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from subfour.cli.arguments import Switch, parse, require_any, require_positive, require_threads
from subfour.cli.console import make_console, print_json
from subfour.cli.tables import print_table
from subfour.export.benchmark import benchmark
from subfour.export.runtime import RUNTIMES, RuntimeName, read_file


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Time an exported file, and float and int8 files of the same network, interleaved."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Written by subfour export."""
    runtimes: tuple[RuntimeName, ...] = tuple(RUNTIMES)
    """Which to run them in."""
    batches: tuple[int, ...] = (1, 16)
    """Images at once."""
    threads: int = 1
    """Of each runtime."""
    repeats: int = 30
    """Timed runs of each, of which the median counts."""
    json: Switch = False
    """Print a JSON list."""


def run(arguments: Sequence[str]) -> None:
    """Print one row per executor and batch size."""
    options = parse(BenchmarkOptions, arguments, prog="subfour benchmark")
    require_any("runtimes", options.runtimes, such_as=" ".join(RUNTIMES))
    require_any("batches", options.batches, such_as="1 16")
    require_positive("batches", *options.batches)
    require_positive("threads", options.threads)
    require_threads(options.threads)
    require_positive("repeats", options.repeats)
    record, content = read_file(options.file)
    timings = benchmark(
        content,
        record,
        runtimes=options.runtimes,
        batches=options.batches,
        threads=options.threads,
        repeats=options.repeats,
    )
    if options.json:
        print_json([asdict(timing) for timing in timings])
        return
    rows = [
        (
            timing.executor,
            timing.batch,
            f"{timing.milliseconds:.2f}",
            f"{timing.ratio:.2f}",
            f"{timing.images_per_second:.0f}",
        )
        for timing in timings
    ]
    title = f"{options.file}: medians of {options.repeats} interleaved runs, {options.threads} thread"
    print_table(make_console(), title, ("executor", "batch", "ms", "over float", "images/s"), rows)
