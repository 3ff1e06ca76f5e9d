"""`subfour export RUN --out FILE`: a trained network as a file for runtimes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from subfour.cli.arguments import Switch, parse, require_positive
from subfour.cli.console import make_console, print_json
from subfour.cli.outputs import check_out
from subfour.cli.tables import print_table
from subfour.durable import write_atomically
from subfour.export.formats import export_model
from subfour.export.record import FileFormat
from subfour.ops import widths_key
from subfour.profit.model_file import read_model

SUFFIXES: dict[FileFormat, str] = {"onnx": ".onnx", "qonnx": ".onnx", "qdq": ".onnx", "codes": ".npz"}
"""What files of each format are named; a name without any of these is the user's own affair."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a finished run, or a model file, as a file for runtimes."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run directory or a model file."""
    out: Path
    """The file to write."""
    format: FileFormat = "onnx"
    """onnx for onnxruntime and OpenVINO, qonnx for FPGA flows, qdq for compilers of integer hardware, codes for firmware."""
    snap: Switch = False
    """Put the constants where every executor gives the same codes, though the network was not trained there."""
    no_snap: Switch = False
    """Leave the constants of a network trained snapped as they were before rounding."""
    resolution: int | None = None
    """Height and width of the input in pixels; by default those of training."""
    data: str | None = None
    """Where training images come from, if --snap or --resolution needs some; by default the data it was trained on."""
    json: Switch = False
    """Print a JSON object."""


def run(arguments: Sequence[str]) -> None:
    """Write the file, and print its size."""
    options = parse(ExportOptions, arguments, prog="subfour export")
    if options.snap and options.no_snap:
        raise ValueError("snap: --snap and --no-snap exclude each other; leave one out")
    require_positive("resolution", options.resolution)
    suffix = SUFFIXES[options.format]
    check_out(options.out, [options.model], usual=f"model{suffix}")
    if options.out.suffix in {*SUFFIXES.values(), ".safetensors"} - {suffix}:
        right = options.out.with_suffix(suffix)
        raise ValueError(f"out: {options.out} is no name for the format {options.format}; use {right}, or another --format")
    if not options.out.parent.is_dir():
        raise ValueError(f"out: there is no folder {options.out.parent}; make it, or name another")
    trained = read_model(options.model)
    exported = export_model(
        trained,
        options.model,
        file_format=options.format,
        snap=False if options.no_snap else True if options.snap else None,
        image_size=options.resolution,
        data=options.data,
    )
    write_atomically(options.out, exported.content)
    record, size = exported.record, len(exported.content)
    graph = None if exported.constant_bytes is None else size - exported.constant_bytes
    unproven = {name: bound for name, bound in exported.bounds.items() if not bound.proven}
    if options.json:
        sizes = {"file": size, "constants": exported.constant_bytes, "graph": graph, "cost_model": exported.cost_bytes}
        result = {"file": str(options.out), "format": options.format, "network": record.network, "snapped": record.snapped}
        result |= {"weight_bits": record.weight_bits, "activation_bits": record.activation_bits}
        result |= {"image_size": record.preprocessing.image_size, "bytes": sizes}
        result |= {"exact_float32": len(exported.bounds) - len(unproven), "layers_and_sums": len(exported.bounds)}
        result |= {"limited": {name: bound._asdict() for name, bound in unproven.items()}}
        print_json(result | {"unclear_channels": exported.unclear_channels})
        return
    widths = widths_key(record.weight_bits, record.activation_bits)
    pixels = record.preprocessing.image_size
    title = (
        f"{options.out}: {record.network}, {widths}, {'snapped' if record.snapped else 'not snapped'}, {pixels}x{pixels} pixels"
    )
    parts = {
        "weights and constants": exported.constant_bytes,
        "graph and metadata": graph,
        "the file": size,
        "weights and constants by the cost model": exported.cost_bytes,
    }
    print_table(make_console(), title, ("part", "bytes"), [(part, count) for part, count in parts.items() if count is not None])
    if exported.bounds:
        print(
            f"exact in float32 for every image: {len(exported.bounds) - len(unproven)} of {len(exported.bounds)} layers and sums"
        )
    if unproven:
        name, bound = max(unproven.items(), key=lambda entry: entry[1].worst / entry[1].exact)
        print(f"least sure: {name}, exact up to {bound.exact}, at worst {bound.worst}; subfour verify shows what images give")
    if exported.unclear_channels:
        print(
            f"executors may give other codes in {exported.unclear_channels} channels behind h-swish; use fewer bits, or --no-snap"
        )
