"""Accuracy against cost (F4), and what each layer costs."""

from collections.abc import Sequence

from subfour.analysis.figures.layers import Panel, layer_figure
from subfour.analysis.figures.tradeoff import Point, tradeoff_figure
from subfour.analysis.published import published_results
from subfour.ops import FLOAT_BITS
from subfour.profit.alike import data_name
from subfour.report.exhibits.exhibit import MOST_BARS, Exhibit, of_all
from subfour.report.record import RunRecord


def tradeoff_exhibit(records: Sequence[RunRecord]) -> Exhibit:
    """F4: accuracy against bit operations and size, beside published results."""
    rows: list[tuple[object, ...]] = []
    ours: list[tuple[str, str, float, float, float]] = []
    smaller: list[tuple[str, str, float, float, float]] = []  # float weights weigh the same, whatever the activations
    for record in records:
        for row in record.widths:
            if cost := record.cost(row.weight_bits, row.activation_bits):
                label = "float" if row.is_float else f"({row.activation_bits}, {row.weight_bits})"
                ours.append((record.name, label, cost.bops / 1e9, cost.bytes / 1e6, row.top1))
                if row.is_float or row.weight_bits != FLOAT_BITS:
                    smaller.append(ours[-1])
                widths = (row.activation_bits, row.weight_bits)
                name = f"{record.name}, snapped" if row.snapped else record.name
                rows.append((record.config.model, name, *widths, row.top1, cost.bops / 1e9, cost.bytes / 1e6, "this page's run"))
    published = published_results()
    rows += [
        (row.network, row.method, row.activation_bits, row.weight_bits, row.top1, row.gbops, row.megabytes, row.source)
        for row in published
    ]
    planes = {
        "G bit operations": (
            [Point(group, gbops, top1, label) for group, label, gbops, _, top1 in ours],
            [Point(row.network, row.gbops, row.top1) for row in published],
        ),
        "size, MB": (
            [Point(group, megabytes, top1, label) for group, label, _, megabytes, top1 in smaller],
            [Point(row.network, row.megabytes, row.top1) for row in published],
        ),
    }
    datasets = ", ".join(dict.fromkeys(data_name(record.config.data) for record in records))
    caption = (
        f"Red: our runs with (activation, weight) bits, on {datasets}. Blue: published results on ImageNet at 224 pixels, "
        "sources in the table; their costs are counted by us, the same widths in every layer. "
        "Heights compare only where the images are the same."
    )
    return Exhibit(
        key="f4-tradeoff",
        title="Our runs and published results",
        caption=caption,
        svg=tradeoff_figure(planes, "f4-tradeoff"),
        columns=("network", "run or method", "activation_bits", "weight_bits", "top1", "gbops", "size_mb", "source"),
        rows=rows,
    )


def cost_exhibit(record: RunRecord) -> Exhibit:
    """Bit operations and size of each layer, at the run's last widths."""
    key, title = "cost", "What each layer costs"
    cost = record.cost(record.phases[-1].weight_bits, record.phases[-1].activation_bits)
    if cost is None:
        return Exhibit(key=key, title=title, caption="The run has no data.json, so the size of its images is not known.")
    dearest = sorted(cost.layers, key=lambda layer: -layer.bops)[:MOST_BARS]
    shown = [layer for layer in cost.layers if layer in dearest]
    return Exhibit(
        key=key,
        title=title,
        caption=f"One image at {record.phases[-1].widths}{of_all(shown, cost.layers)}; batch norm is left out.",
        svg=layer_figure(
            [layer.name for layer in shown],
            [layer.kind for layer in shown],
            [
                Panel("M bit operations", [layer.bops / 1e6 for layer in shown]),
                Panel("size, kB", [layer.bytes / 1e3 for layer in shown]),
            ],
            key,
        ),
        columns=("layer", "kind", "input_bits", "macs", "bops", "bytes", "activation_bytes"),
        rows=[
            (layer.name, layer.kind, layer.input_bits, layer.macs, layer.bops, layer.bytes, layer.activation_bytes)
            for layer in cost.layers
        ],
    )
