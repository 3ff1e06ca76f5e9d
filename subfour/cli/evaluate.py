"""`subfour evaluate RUN_OR_FILE --data SOURCE`: accuracy of a trained model."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from subfour.cli.arguments import parse
from subfour.cli.tables import print_table
from subfour.profit.model_file import evaluate_model, read_model


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate, and on what."""

    model: Annotated[Path, tyro.conf.Positional]
    """A finished run directory, or a model file."""
    data: str | None = None
    """digits, folder:PATH, parquet:PATH or hub:NAME; by default the data it was trained on."""
    split: str | None = None
    """Which split; by default the only one, else validation."""
    batch_size: int = 250
    """Images at once."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    json: bool = False
    """Print a JSON object."""


def run(arguments: Sequence[str]) -> None:
    """Print the accuracy."""
    options = parse(EvaluateOptions, arguments, prog="subfour evaluate")
    trained = read_model(options.model)
    accuracy = evaluate_model(
        trained,
        options.data or trained.config.data,
        split=options.split,
        batch_size=options.batch_size,
        device=options.device,
    )
    if options.json:
        print(json.dumps(asdict(accuracy), indent=2))
        return
    rows = [(accuracy.top1, accuracy.top5, accuracy.loss, accuracy.images)]
    title = f"{options.model}: A{trained.activation_bits}W{trained.weight_bits}"
    print_table(Console(), title, ("top-1 %", "top-5 %", "loss", "images"), rows)
