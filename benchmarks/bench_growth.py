"""How the training step's time and memory grow with batch, resolution, width and depth, in float and at 4 bits.

python benchmarks/bench_growth.py [--repeats 7] [--out FILE.csv] [--figure FILE.svg]

MobileNet-v2 with 1,000 classes around one base, W4A4 on both fast engines beside float32, one thread; one thing varies at a time.
Depth repeats the blocks of each stage: 1 is the stock network. `training_step.py` says how numbers are taken. An exponent is the
slope of the logarithms, by least squares: 1 is growth in proportion, 2 with the square. Resolution counts the side in pixels.
"""

import argparse
import statistics
from dataclasses import dataclass, replace
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from table import provenance, write_rows
from torchvision.models import MobileNetV2
from training_step import CLASSES, COMPILED, FLOAT, FOLDED, Memory, Variant, memory, random_batch, timed, variant

from subfour.analysis.figures.style import figure_style, grid, plain_numbers, series_colour, svg_file
from subfour.train.allocator import keep_freed_memory

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Of MobileNet-v2, arXiv:1801.04381, table 2: expansion, channels, blocks, stride."""


@dataclass(frozen=True)
class Size:
    """What a step is computed on."""

    batch: int = 16
    resolution: int = 64
    width: float = 1.0
    depth: int = 1


AXES: dict[str, tuple[float, ...]] = {
    "batch": (4, 8, 16, 32, 64),
    "resolution": (32, 64, 96, 128, 160),
    "width": (0.5, 1.0, 1.5, 2.0),
    "depth": (1, 2, 3, 4),
}

QUANTITIES = {"milliseconds": "step, ms", "saved_mb": "kept, MB", "peak_mb": "peak, MB"}
"""Column -> what a figure calls it."""

VARIANTS = (FLOAT, FOLDED, COMPILED)

COLUMNS = ["varies", "value", "variant", *QUANTITIES, "ratio", *(f"{name}_exponent" for name in QUANTITIES)]
COLUMNS += [*("batch", "resolution", "width", "depth", "repeats", "date", "cpu", "torch", "commit")]


def build(name: str, size: Size) -> Variant:
    """Return a variant of a network of some size."""
    torch.manual_seed(0)
    images, labels = random_batch(size.resolution, size.batch)
    stages = [[expansion, channels, blocks * size.depth, stride] for expansion, channels, blocks, stride in STAGES]
    return variant(MobileNetV2(CLASSES, size.width, stages), name, images, labels)


def exponent(values: list[float], costs: list[float]) -> float:
    """Return the slope of log(cost) over log(value)."""
    return statistics.linear_regression([*map(log, values)], [*map(log, costs)]).slope


def sizes_along(varies: str) -> dict[float, Size]:
    """Return the sizes in which one thing varies, by its value."""
    return {value: replace(Size(), **{varies: value}) for value in AXES[varies]}


def rows_of(varies: str, needed: dict[tuple[str, Size], Memory], repeats: int) -> list[dict[str, Any]]:
    """Return a row per value and variant."""
    rows: list[dict[str, Any]] = []
    for value, size in sizes_along(varies).items():
        taken = timed({name: build(name, size) for name in VARIANTS}, 1, repeats)
        for name, (seconds, ratio) in taken.items():
            found = needed[name, size]
            costs = {"milliseconds": 1000 * seconds, "saved_mb": found.saved, "peak_mb": found.peak}
            rows.append({"varies": varies, "value": value, "variant": name, "ratio": f"{ratio:.3f}"} | costs | vars(size))
    for name in VARIANTS:
        of_variant = [row for row in rows if row["variant"] == name]
        for quantity in QUANTITIES:
            slope = exponent([row["value"] for row in of_variant], [row[quantity] for row in of_variant])
            for row in of_variant:
                row[f"{quantity}_exponent"] = f"{slope:.2f}"
    return rows


def growth_figure(rows: list[dict[str, Any]]) -> str:
    """Draw time and peak memory over each of the four, in logarithms, with the exponents."""
    with figure_style("growth"):
        figure, axes = grid(len(AXES), 2, height=1.7 * len(AXES), sharex=False)
        for index, varies in enumerate(AXES):
            of_axis = [row for row in rows if row["varies"] == varies]
            for axis, quantity in zip(axes[2 * index : 2 * index + 2], ("milliseconds", "peak_mb"), strict=True):
                _draw(axis, of_axis, varies, quantity)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return svg_file(figure)


def _draw(axis: Axes, rows: list[dict[str, Any]], varies: str, quantity: str) -> None:
    axis.set(xscale="log", yscale="log", xlabel=varies, ylabel=QUANTITIES[quantity])
    for index, name in enumerate(VARIANTS):
        of_variant = [row for row in rows if row["variant"] == name]
        x, y = [row["value"] for row in of_variant], [row[quantity] for row in of_variant]
        slope = of_variant[0][f"{quantity}_exponent"]
        axis.plot(x, y, marker="o", markersize=3, linewidth=0.8, color=series_colour(index), label=name)
        axis.text(0.98, 0.04 + 0.11 * index, f"^{slope}", transform=axis.transAxes, color=series_colour(index), ha="right")
    axis.set_xticks(AXES[varies], [f"{value:g}" for value in AXES[varies]], fontsize=6.5)
    plain_numbers(axis.yaxis)
    axis.minorticks_off()


def main() -> None:
    """Print, write and draw; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    sizes = dict.fromkeys(size for varies in AXES for size in sizes_along(varies).values())
    needed = {(name, size): memory(partial(build, name, size)) for size in sizes for name in VARIANTS}
    keep_freed_memory()
    shared = {"repeats": options.repeats, "torch": torch.__version__, **provenance()}
    rows: list[dict[str, Any]] = []
    for varies in AXES:
        of_axis = rows_of(varies, needed, options.repeats)
        rows += of_axis
        for row in of_axis:
            shown = [f"{row[quantity]:.1f} ^{row[f'{quantity}_exponent']}" for quantity in QUANTITIES]
            named = f"{varies:10} {row['value']:>5g}  {row['variant']:16} {row['ratio']:>6}"
            print(named, *(f"{text:>14}" for text in shown), flush=True)
    if options.figure:
        options.figure.parent.mkdir(exist_ok=True)
        options.figure.write_text(growth_figure(rows))
    if options.out:
        rounded = [row | {quantity: f"{row[quantity]:.1f}" for quantity in QUANTITIES} for row in rows]
        write_rows(options.out, COLUMNS, (row | shared for row in rounded))


if __name__ == "__main__":
    main()
