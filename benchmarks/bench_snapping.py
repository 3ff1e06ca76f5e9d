"""What snapping costs in accuracy, over draws, because one network's top-1 is chance: results/snapping.csv.

python benchmarks/bench_snapping.py MODEL SNAPPED [SNAPPED ...] [--data parquet:cifar10] [--draws 8] [--moved 0.001]

MODEL is not snapped; it is evaluated as it is, and snapped without training. Each SNAPPED is what a snap phase made of it. In
draw 0 all have the ranges they were trained with. In the others every activation's range is moved by about a thousandth: no one
would call that another network, but it moves codes of the first layers, and those all that follow. So the cost of snapping is a
difference between means over these draws, in which the k-th moves the ranges of all networks alike. Its standard error is that of
the draws' paired differences.
"""

import argparse
import copy
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch
from rich.console import Console
from rich.table import Table
from table import RESULTS, provenance, read_rows, write_rows

from subfour.export.deployed import measured_snapping
from subfour.layers import quant_layers
from subfour.profit.model_file import TrainedModel, evaluate_model, read_model
from subfour.quantizers import DuQ

TABLE = RESULTS / "snapping.csv"
COLUMNS = ["of", "network", "constants", "moved", "draw", "top1", "loss", "data", "date", "cpu", "commit"]
THREADS = 1


@torch.no_grad()
def moved(trained: TrainedModel, draw: int, by: float) -> TrainedModel:
    """Return a copy with every activation's input range moved: softplus' argument plus `by` times a normal number."""
    model = copy.deepcopy(trained.model)
    generator = torch.Generator().manual_seed(draw)
    for layer in quant_layers(model).values():
        quantizer = layer.activation_quantizer
        if draw and isinstance(quantizer, DuQ):
            quantizer.input_range_raw.add_(by * torch.randn((), generator=generator))
    return replace(trained, model=model)


def networks(model: Path, snapped: list[Path], data: str) -> dict[tuple[str, str], TrainedModel]:
    """Return what is compared, by file and constants."""
    trained = read_model(model)
    snapping = measured_snapping(trained.model, trained.data.preprocessing, data, unreadable="error")
    return {
        (model.stem, "not snapped"): trained,
        (model.stem, "snapped, untrained"): replace(trained, snapping=snapping),
        **{(path.stem, "snapped"): read_model(path) for path in snapped},
    }


def summary(rows: list[dict[str, object]]) -> Table:
    """Return each network's mean over the draws in which ranges are moved, and its distance to the one not snapped."""
    table = Table("network", "constants", "as trained", "mean", "deviation", "minus not snapped", "loss")
    top1: dict[tuple[str, str], list[float]] = {}
    losses: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        network = (str(row["network"]), str(row["constants"]))
        top1.setdefault(network, []).append(float(str(row["top1"])))
        losses.setdefault(network, []).append(float(str(row["loss"])))
    phases = [network for network in top1 if network[1] == "snapped"]
    for values in (top1, losses):  # by draw
        values[f"{len(phases)} phases", "snapped"] = [
            mean(draw) for draw in zip(*(values[phase] for phase in phases), strict=True)
        ]
    before = next(iter(top1.values()))
    for network, own in top1.items():
        difference = [value - other for value, other in zip(own, before, strict=True)][1:]
        error = stdev(difference) / len(difference) ** 0.5
        cells = f"{own[0]:.2f}", f"{mean(own[1:]):.2f}", f"{stdev(own[1:]):.2f}", f"{mean(difference):+.3f} +- {error:.3f}"
        table.add_row(*network, *cells, f"{mean(losses[network][1:]):.4f}")
    return table


def main() -> None:
    """Fill the table; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("snapped", type=Path, nargs="+")
    parser.add_argument("--data", default="parquet:cifar10")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--moved", type=float, default=1e-3)
    options = parser.parse_args()
    stems = {path.stem for path in (options.model, *options.snapped)}
    if len(stems) <= len(options.snapped) or options.draws < 2:
        parser.error("each file needs a name of its own, and two draws are the least")
    torch.set_num_threads(THREADS)
    rows: list[dict[str, object]] = []
    for (network, constants), trained in networks(options.model, options.snapped, options.data).items():
        for draw in range(options.draws + 1):
            found = evaluate_model(moved(trained, draw, options.moved), options.data)
            row = {"of": options.model.stem, "network": network, "constants": constants, "moved": options.moved, "draw": draw}
            rows.append(row | {"top1": f"{found.top1:.2f}", "loss": f"{found.loss:.4f}", "data": options.data, **provenance()})
            print(network, constants, draw, rows[-1]["top1"], rows[-1]["loss"], flush=True)
    measured = {(row["of"], row["network"], row["constants"]) for row in rows}
    others = [row for row in read_rows(TABLE) if (row["of"], row["network"], row["constants"]) not in measured]
    write_rows(TABLE, COLUMNS, [*others, *rows])
    Console().print(summary(rows))


if __name__ == "__main__":
    main()
