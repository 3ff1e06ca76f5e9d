"""`subfour predict FILE IMAGE...`: what an exported network sees in photographs. Needs no torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from subfour.cli.arguments import Switch, parse, require_positive, require_threads
from subfour.cli.console import make_console, print_json
from subfour.cli.tables import print_table
from subfour.export.predict import predict
from subfour.export.runtime import RuntimeName, open_file

USUAL_CLASSES = 3


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Print the most probable classes of images."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Written by subfour export."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """Image files."""
    top: int | None = None
    """Classes for each; by default 3, or all where there are fewer."""
    runtime: RuntimeName = "onnxruntime"
    """What runs the file."""
    threads: int = 0
    """Of the runtime; 0 leaves it to the runtime."""
    json: Switch = False
    """Print a JSON object: lists of classes by image."""


def run(arguments: Sequence[str]) -> None:
    """Print the classes."""
    options = parse(PredictOptions, arguments, prog="subfour predict")
    if not options.images:
        raise ValueError("images: name one or more image files")
    require_positive("top", options.top)
    require_threads(options.threads)
    deployed = open_file(options.file, runtime=options.runtime, threads=options.threads)
    classes = len(deployed.record.classes)
    if options.top is not None and options.top > classes:
        raise ValueError(f"top: {options.top} is more than the {classes} classes of {options.file}; use {classes} or less")
    guesses = predict(deployed, options.images, top=options.top or USUAL_CLASSES)
    if options.json:
        print_json({str(path): list(map(asdict, row)) for path, row in zip(options.images, guesses, strict=True)})
        return
    rows = [
        (path, guess.name, f"{100 * guess.probability:.1f}")
        for path, row in zip(options.images, guesses, strict=True)
        for guess in row
    ]
    print_table(make_console(), f"{options.file} in {options.runtime}", ("image", "class", "probability %"), rows)
