"""`subfour inspect MODEL`: one row per quantized layer; MODEL is a network's name, a run, or a model file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from subfour.cli.arguments import parse
from subfour.cli.tables import print_table
from subfour.profit.config import BitWidth
from subfour.profit.inspection import inspect_file, inspect_network
from subfour.quantizers import QuantizerName


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What to look at, and at which widths."""

    model: Annotated[str, tyro.conf.Positional]
    """torchvision/NAME, timm/NAME, subfour/NAME, a run directory or a model file."""
    weight_bits: BitWidth | None = None
    """Width of the weights; a run or file has its own, a network 4."""
    activation_bits: BitWidth | None = None
    """Width of the activations; likewise."""
    quantizer: QuantizerName = "duq"
    """For a network by name."""
    padding: Literal["negative", "zero"] = "negative"
    """For a network by name."""
    json: bool = False
    """Print a JSON list."""


def run(arguments: Sequence[str]) -> None:
    """Print the layers."""
    options = parse(InspectOptions, arguments, prog="subfour inspect")
    if Path(options.model).exists():
        layers = inspect_file(Path(options.model))
    else:
        layers = inspect_network(
            options.model,
            weight_bits=options.weight_bits or 4,
            activation_bits=options.activation_bits or 4,
            quantizer=options.quantizer,
            padding=options.padding,
        )
    if options.json:
        print(json.dumps(layers, indent=2))
        return
    columns = ("name", "kind", "weight_bits", "input_bits", "quantizer", "pad_value", "zero_share", "reason")
    title = f"{options.model}: {len(layers)} quantized layers"
    print_table(Console(), title, columns, [[layer[column] for column in columns] for layer in layers])
