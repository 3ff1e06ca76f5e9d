"""The figures of the report: what each shows, in words, as SVG, and as a table of its numbers.

A figure that cannot be drawn says why instead: older runs lack the ranges, unfinished ones the network.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from itertools import accumulate, groupby

from subfour.analysis import figures
from subfour.analysis.activations import QuantizerSample
from subfour.analysis.curves import fluctuation, loss_curve
from subfour.analysis.figures import Histogram, Panel, Point, Span
from subfour.analysis.published import published_results
from subfour.ops import FLOAT_BITS
from subfour.report.record import RunRecord

MOST_BARS = 60
"""Layers in one figure; its table has them all."""

MOST_HISTOGRAMS = 12

MOST_LEVELS = 32
"""Levels drawn one by one; more run into each other."""

METHODS = {"profit": "PROFIT", "none": "nothing frozen"}


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One figure, or the reason why it is not there."""

    key: str
    """Name of its files."""
    title: str
    caption: str
    """What it shows, or why it is not there."""
    svg: str = ""
    """Empty where it cannot be drawn."""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()

    @property
    def csv(self) -> str:
        """The numbers of the figure."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return file.getvalue()


def profit_exhibit(records: Sequence[RunRecord]) -> Exhibit:
    """F1: loss with and without PROFIT, of the runs with the first one's quantizers."""
    main = records[0]
    shown = [record for record in records if record.config.quantizer == main.config.quantizer]
    hint = "" if len({record.config.method for record in shown}) > 1 else " Give a run with the other --method to compare."
    return _loss_exhibit("f1-profit", "Loss over the epochs", shown, lambda record: METHODS[record.config.method], hint)


def quantizer_exhibit(records: Sequence[RunRecord]) -> Exhibit:
    """F2: loss with two quantizers, of the runs with the first one's method."""
    main, key, title = records[0], "f2-quantizers", "Loss with other quantizers"
    shown = [record for record in records if record.config.method == main.config.method]
    if len({record.config.quantizer for record in shown}) < 2:
        return Exhibit(key=key, title=title, caption="Give a second run, with another --quantizer, to compare.")
    return _loss_exhibit(key, title, shown, lambda record: record.config.quantizer, "")


def _loss_exhibit(key: str, title: str, records: Sequence[RunRecord], label: Callable[[RunRecord], str], hint: str) -> Exhibit:
    main = records[0]
    begun = [record for record in records if record.metrics]
    if not begun:
        return Exhibit(key=key, title=title, caption="No epoch is done yet.")
    labels = [label(record) for record in begun]
    distinct = [name if labels.count(name) == 1 else f"{name}, {record.name}" for name, record in zip(labels, begun, strict=True)]
    curves = [loss_curve(name, record.metrics) for name, record in zip(distinct, begun, strict=True)]
    sentences = []
    for name in dict.fromkeys(labels):
        group = [record.metrics for record, its_name in zip(begun, labels, strict=True) if its_name == name]
        if found := fluctuation(group):
            runs = f", {found.runs} runs" if found.runs > 1 else ""
            sentences.append(f"{name} {found.deviation:.4f} ({found.changes} changes{runs})")
    jumps = (
        f" Fluctuation of the validation loss after sampling, restarts left out: {'; '.join(sentences)}."
        if sentences
        else " Too few epochs after sampling to speak of fluctuation."
    )
    ends = [0, *accumulate(phase.epochs for phase in main.phases)]
    last = max(len(record.metrics) for record in begun)
    caption = f"Losses of the raw weights, {last} epochs; shades tell widths apart, lines phases.{jumps}{hint}"
    rows = [
        (curve.label, epoch, training, validation)
        for curve in curves
        for epoch, training, validation in zip(curve.epochs, curve.training, curve.validation, strict=True)
    ]
    widths = [span for span in _width_spans(main) if span.start < last]
    return Exhibit(
        key=key,
        title=title,
        caption=caption,
        svg=figures.loss_figure(curves, widths, [end for end in ends[1:-1] if end < last], key),
        columns=("run", "epoch", "training_loss", "validation_loss"),
        rows=rows,
    )


def _width_spans(record: RunRecord) -> list[Span]:
    """Return the blocks of epochs at one pair of widths."""
    spans, done = [], 0
    for widths, phases in groupby(record.phases, key=lambda phase: phase.widths):
        epochs = sum(phase.epochs for phase in phases)
        spans.append(Span("float" if widths == "A32W32" else widths, done, done + epochs))
        done += epochs
    return spans


def histogram_exhibit(samples: Sequence[QuantizerSample], reason: str) -> Exhibit:
    """F3: what enters the quantizers, with their levels; h-swish layers first."""
    key, title = "f3-levels", "What enters the quantizers, and their levels"
    order = ("hswish", "unsigned", "signed")
    inputs = [sample for sample in samples if sample.role == "activation" and sample.kind != "stem"]
    if not inputs:
        return Exhibit(key=key, title=title, caption=reason)
    chosen = sorted(inputs, key=lambda sample: order.index(sample.domain))[:MOST_HISTOGRAMS]
    rows: list[tuple[object, ...]] = []
    histograms = []
    for sample in chosen:
        levels = sample.levels.tolist()
        histograms.append(
            Histogram(
                title=f"{sample.layer}, {sample.domain}",
                values=sample.values.tolist(),
                levels=levels if len(levels) <= MOST_LEVELS else (),
                ends=(levels[0], levels[-1]),
            )
        )
        rows += [(sample.layer, sample.domain, "level", level, "") for level in levels]
        counts, edges = sample.values.histogram(60)
        rows += [
            (sample.layer, sample.domain, "bin", low, int(count))
            for low, count in zip(edges.tolist(), counts.tolist(), strict=False)
        ]
    caption = (
        f"{len(chosen)} of {len(inputs)} layers, h-swish outputs first. Grey: how often a value enters (logarithmic). "
        f"Red: the learned levels, or their extent where there are more than {MOST_LEVELS}. "
        "Values far beyond the levels are left out."
    )
    return Exhibit(
        key=key,
        title=title,
        caption=caption,
        svg=figures.histogram_figure(histograms, key),
        columns=("layer", "domain", "what", "value", "count"),
        rows=rows,
    )


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
                rows.append((record.config.model, record.name, *widths, row.top1, cost.bops / 1e9, cost.bytes / 1e6, "this run"))
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
    datasets = ", ".join(dict.fromkeys(record.config.data for record in records))
    caption = (
        f"Red: our runs with (activation, weight) bits, on {datasets}. Blue: published results on ImageNet at 224 pixels, "
        "sources in the table; their costs are counted by us, the same widths in every layer. "
        "Heights compare only where the images are the same."
    )
    return Exhibit(
        key="f4-tradeoff",
        title="Our runs and published results",
        caption=caption,
        svg=figures.tradeoff_figure(planes, "f4-tradeoff"),
        columns=("network", "run or method", "activation_bits", "weight_bits", "top1", "gbops", "size_mb", "source"),
        rows=rows,
    )


def instability_exhibit(record: RunRecord) -> Exhibit:
    """AIWQ per layer, bands for what was frozen when."""
    key, title = "aiwq", "Instability of the layers (AIWQ)"
    layers = record.sensitivity
    if not layers:
        why = (
            "Layers are sampled at the last width, which this run has not reached."
            if record.status != "finished"
            else ("This run has no sampling phase.")
        )
        return Exhibit(key=key, title=title, caption=why)
    shown = layers[:MOST_BARS]
    bands, row = [], 0
    for phase, group in groupby(shown, key=lambda layer: layer["frozen_in_phase"]):
        count = len(list(group))
        if phase is not None:
            bands.append(Span(f"frozen from phase {phase + 1}", row, row + count))
        row += count
    frozen = "Bands: frozen first, frozen later." if bands else "This run froze nothing."
    caption = f"The most unstable first{_of_all(shown, layers)}. {frozen}"
    return Exhibit(
        key=key,
        title=title,
        caption=caption,
        svg=figures.layer_figure(
            [layer["name"] for layer in shown],
            [layer["kind"] for layer in shown],
            [Panel("AIWQ", [layer["aiwq"] for layer in shown], log=True)],
            key,
            bands,
        ),
        columns=("layer", "kind", "aiwq", "dropped_share", "frozen_from_phase"),
        rows=[
            (layer["name"], layer["kind"], layer["aiwq"], layer["dropped"], _counted(layer["frozen_in_phase"]))
            for layer in layers
        ],
    )


def freezing_exhibit(record: RunRecord) -> Exhibit:
    """When each layer was frozen."""
    key, title = "freezing", "What was frozen when"
    ends = [0, *accumulate(phase.epochs for phase in record.phases)]
    sampling = next((index for index, phase in enumerate(record.phases) if phase.kind == "sample"), None)
    layers = record.sensitivity
    if sampling is None or not any(layer["frozen_in_phase"] is not None for layer in layers):
        why = "Nothing is frozen before AIWQ is sampled." if record.config.method == "profit" else "This run froze nothing."
        return Exhibit(key=key, title=title, caption=why)
    frozen_phases = {index: phase.frozen for index, phase in enumerate(record.phases) if phase.frozen}
    spans = []
    for place, layer in enumerate(layers):
        its = [index for index, share in frozen_phases.items() if place < math.floor(share * len(layers))]
        spans.append([Span(layer["name"], ends[index], ends[index + 1]) for index in its])
    shown = layers[:MOST_BARS]
    phases = [
        Span(f"{phase.kind}{f' {phase.frozen}' if phase.frozen else ''}", ends[index], ends[index + 1])
        for index, phase in enumerate(record.phases)
        if index >= sampling
    ]
    return Exhibit(
        key=key,
        title=title,
        caption=f"Red: the layer's weight does not train{_of_all(shown, layers)}. Batch norm and ranges go on.",
        svg=figures.freeze_figure([layer["name"] for layer in shown], spans[: len(shown)], phases, key),
        columns=("layer", "from_epoch", "to_epoch"),
        rows=[(span.label, span.start, span.end) for row in spans for span in row],
    )


def range_exhibit(record: RunRecord) -> Exhibit:
    """How the input ranges moved."""
    key, title = "ranges", "How the ranges moved"
    if not any(epoch.get("ranges") for epoch in record.metrics):
        why = (
            "Nothing is quantized yet."
            if all("ranges" in epoch for epoch in record.metrics)
            else ("This run was made before ranges were logged.")
        )
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
    moved = [abs(line[-1] - 1) for line in panels[names["activation"]].values() if math.isfinite(line[-1])]
    middle = f" Half of the activations' ranges moved by more than {100 * sorted(moved)[len(moved) // 2]:.0f} %." if moved else ""
    return Exhibit(
        key=key,
        title=title,
        caption=f"One line per layer, relative to where its range began.{middle}",
        svg=figures.range_figure({panel: lines for panel, lines in panels.items() if lines}, kinds, key),
        columns=("layer", "role", "epoch", "input_range", "output_range"),
        rows=rows,
    )


def error_exhibit(samples: Sequence[QuantizerSample], reason: str) -> Exhibit:
    """Quantization error of inputs and weights."""
    key, title = "errors", "Quantization error"
    if not samples:
        return Exhibit(key=key, title=title, caption=reason)
    by_layer = _by_layer(samples)
    worst = sorted(by_layer, key=lambda name: -max(sample.error for sample in by_layer[name].values()))[:MOST_BARS]
    shown = [name for name in by_layer if name in worst]
    roles = [role for role in ("activation", "weight") if any(role in by_layer[name] for name in shown)]
    panels = [
        Panel(f"{role}s", [by_layer[name][role].error if role in by_layer[name] else 0.0 for name in shown], log=True)
        for role in roles
    ]
    return Exhibit(
        key=key,
        title=title,
        caption=f"Mean squared error over mean square{_of_all(shown, by_layer)}: 0.01 is one percent of the power.",
        svg=figures.layer_figure(shown, [_kind(by_layer[name]) for name in shown], panels, key),
        columns=("layer", "role", "bits", "relative_error"),
        rows=[(sample.layer, sample.role, sample.quantizer.bits, sample.error) for sample in samples],
    )


def code_exhibit(samples: Sequence[QuantizerSample], reason: str) -> Exhibit:
    """Dead codes and saturated values of the inputs."""
    key, title = "codes", "Dead codes and saturated values"
    inputs = [sample for sample in samples if sample.role == "activation"]
    if not inputs:
        return Exhibit(key=key, title=title, caption=reason)
    worst = sorted(inputs, key=lambda sample: -(sample.dead_share + sample.saturated_share))[:MOST_BARS]
    shown = [sample for sample in inputs if sample in worst]
    return Exhibit(
        key=key,
        title=title,
        caption=f"Share of codes that no value has, and of values beyond the range{_of_all(shown, inputs)}. "
        "8-bit inputs have more codes than they need.",
        svg=figures.layer_figure(
            [sample.layer for sample in shown],
            [sample.kind for sample in shown],
            [
                Panel("dead codes, %", [100 * sample.dead_share for sample in shown]),
                Panel("saturated values, %", [100 * sample.saturated_share for sample in shown]),
            ],
            key,
        ),
        columns=("layer", "bits", "dead_share", "saturated_share", "commonest_code_share"),
        rows=[
            (sample.layer, sample.quantizer.bits, sample.dead_share, sample.saturated_share, sample.commonest_share)
            for sample in inputs
        ],
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
        caption=f"One image at {record.phases[-1].widths}{_of_all(shown, cost.layers)}; batch norm is left out.",
        svg=figures.layer_figure(
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


def _by_layer(samples: Sequence[QuantizerSample]) -> dict[str, dict[str, QuantizerSample]]:
    by_layer: dict[str, dict[str, QuantizerSample]] = {}
    for sample in samples:
        by_layer.setdefault(sample.layer, {})[sample.role] = sample
    return by_layer


def _kind(roles: dict[str, QuantizerSample]) -> str:
    return next(iter(roles.values())).kind


def _of_all(shown: Sequence[object], everything: Sized) -> str:
    count = len(everything)
    return "" if len(shown) == count else f", {len(shown)} of {count} layers; the table has all"


def _counted(phase: int | None) -> int | str:
    """Return a phase as people count, from 1."""
    return "" if phase is None else phase + 1
