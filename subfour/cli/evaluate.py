"""`subfour evaluate RUN_OR_FILE --data SOURCE`: accuracy of a trained model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from subfour.cli.arguments import Switch, parse
from subfour.cli.console import make_console, print_json
from subfour.cli.tables import print_table
from subfour.ops import widths_name
from subfour.profit.model_file import evaluate_model, read_model


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Print the accuracy of a finished run or a model file."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run directory or a model file."""
    data: str | None = None
    """digits, folder:PATH, parquet:PATH or hub:NAME; by default the data it was trained on."""
    split: str | None = None
    """Which split; by default the only one, else validation."""
    batch_size: int = 250
    """Images at once."""
    workers: int | None = None
    """Processes that decode images; by default as many as in training."""
    device: str = "auto"
    """auto (cuda if there is one), cpu, cuda."""
    json: Switch = False
    """Print a JSON object."""


def run(arguments: Sequence[str]) -> None:
    """Print the accuracy."""
    options = parse(EvaluateOptions, arguments, prog="subfour evaluate")
    trained = read_model(options.model)
    data = trained.config.data if options.data is None else options.data
    accuracy = evaluate_model(
        trained, data, split=options.split, batch_size=options.batch_size, workers=options.workers, device=options.device
    )
    snapped = trained.snapping is not None
    if options.json:
        widths = {"weight_bits": trained.weight_bits, "activation_bits": trained.activation_bits}
        print_json({**asdict(accuracy), **widths, "snapped": snapped, "data": data})
        return
    title = f"{options.model}: {widths_name(trained.weight_bits, trained.activation_bits, snapped=snapped)} on {data}"
    rows = [(f"{accuracy.top1:.2f}", f"{accuracy.top5:.2f}", f"{accuracy.loss:.3f}", accuracy.images)]
    print_table(make_console(), title, ("top-1 %", "top-5 %", "loss", "images"), rows)
