"""`subfour inspect MODEL`: one row per quantized layer; MODEL is a network's name, a run, or a model file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from subfour.cli.arguments import Switch, parse
from subfour.cli.console import make_console, print_json
from subfour.cli.model_argument import check_model
from subfour.cli.tables import print_table
from subfour.convert import Padding
from subfour.ops import check_bits
from subfour.profit.fields import BitWidth
from subfour.profit.inspection import inspect_file, inspect_network
from subfour.profit.subject import USUAL_BITS
from subfour.quantizers import QuantizerName, check_weight_bits


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """List the quantized layers of a network, a run or a model file."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """torchvision/NAME, timm/NAME, subfour/NAME, DISTRIBUTION/NAME, a run directory or a model file."""
    weight_bits: BitWidth | None = None
    """Width of the weights of a network by name: 4 if left out. Runs and files have their own, as of all below."""
    activation_bits: BitWidth | None = None
    """Width of its activations: 4 if left out."""
    quantizer: QuantizerName | None = None
    """Which paper's quantizers: duq if left out."""
    padding: Padding | None = None
    """What its convolutions fed by h-swish are padded with: negative if left out."""
    json: Switch = False
    """Print a JSON list."""


def run(arguments: Sequence[str]) -> None:
    """Print the layers."""
    options = parse(InspectOptions, arguments, prog="subfour inspect")
    layers = _layers(options)
    if options.json:
        print_json(layers)
        return
    columns = ("name", "kind", "W", "A", "quantizer", "pad", "zeros", "why")
    rows = [
        (
            layer["name"],
            layer["kind"],
            layer["weight_bits"],
            layer["input_bits"],
            layer["quantizer"],
            layer["pad_value"],
            layer["zero_share"],
            f"{layer['source']}: {layer['reason']}",
        )
        for layer in layers
    ]
    title = f"{options.model}: {len(layers)} quantized layers (W, A: bits of weights and input; zeros: share of the weights)"
    print_table(make_console(), title, columns, rows)


def _layers(options: InspectOptions) -> list[dict[str, Any]]:
    given = {name: getattr(options, name) for name in ("weight_bits", "activation_bits", "quantizer", "padding")}
    given = {name: value for name, value in given.items() if value is not None}
    if Path(options.model).exists():
        for name in given:
            raise ValueError(f"{name}: {options.model} has its own, which cannot be changed here; leave the option out")
        return inspect_file(Path(options.model))
    check_model(options.model)
    for name in ("weight_bits", "activation_bits"):
        check_bits(given.setdefault(name, USUAL_BITS), name)
    if "quantizer" in given:
        check_weight_bits(given["quantizer"], [given["weight_bits"]])
    return inspect_network(options.model, **given)
