"""How the learned ranges moved."""

import math
from statistics import median

from subfour.analysis.figures.epochs import range_figure
from subfour.report.exhibits.exhibit import Exhibit
from subfour.report.record import RunRecord


def range_exhibit(record: RunRecord) -> Exhibit:
    """How the input ranges moved."""
    key, title = "ranges", "How the ranges moved"
    if not any(epoch.get("ranges") for epoch in record.metrics):
        if record.config.ends_float or record.config.method == "data-free":
            why = "No range is trained in this run."
        elif all("ranges" in epoch for epoch in record.metrics):
            why = "Nothing is quantized yet."
        else:
            why = "This run was made before ranges were logged."
        return Exhibit(key=key, title=title, caption=why)
    kinds = {} if record.workload is None else {layer.name: layer.kind for layer in record.workload.layers}
    names = {"activation": "input range of the activations", "weight": "input range of the weights"}
    panels: dict[str, dict[str, list[float]]] = {}
    rows: list[tuple[object, ...]] = []
    for role, panel in names.items():
        lines: dict[str, list[float]] = {}
        first: dict[str, float] = {}
        for epoch, metrics in enumerate(record.metrics):
            for layer, roles in metrics.get("ranges", {}).items():
                if role in roles:
                    value, _ = roles[role]
                    line = lines.setdefault(layer, [math.nan] * len(record.metrics))
                    line[epoch] = value / first.setdefault(layer, value) if first.get(layer, value) else math.nan
                    rows.append((layer, role, epoch + 1, *roles[role]))
        panels[panel] = lines
    learned = {layer: line[-1] for layer, line in panels[names["activation"]].items() if layer not in record.fixed_ranges}
    moved = [abs(last - 1) for last in learned.values() if math.isfinite(last)]
    middle = f" Half of the activations' ranges moved by more than {100 * median(moved):.1f} %." if moved else ""
    return Exhibit(
        key=key,
        title=title,
        caption=f"One line per layer, relative to where its range began.{middle}",
        svg=range_figure({panel: lines for panel, lines in panels.items() if lines}, kinds, key),
        columns=("layer", "role", "epoch", "input_range", "output_range"),
        rows=rows,
    )
