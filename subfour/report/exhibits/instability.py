"""AIWQ of the layers, and what was frozen when."""

from itertools import accumulate

from subfour.analysis.figures.epochs import freeze_figure
from subfour.analysis.figures.layers import Panel, layer_figure
from subfour.analysis.figures.style import Span
from subfour.report.exhibits.exhibit import MOST_BARS, Exhibit, of_all
from subfour.report.record import RunRecord

BESIDE_WEIGHTS = {
    "weights": "Batch norm and ranges go on.",
    "weights+ranges": "Nor do its ranges; batch norm goes on.",
    "weights+ranges+batchnorm": "Nor do its ranges and its batch norm.",
}
"""What becomes of the rest of a frozen layer, by `ProfitConfig.covers`."""


def instability_exhibit(record: RunRecord) -> Exhibit:
    """AIWQ per layer, bands for what was frozen when."""
    key, title = "aiwq", "Activation instability by weight quantization (AIWQ)"
    layers = record.sensitivity
    if not layers:
        samples = any(phase.kind == "sample" for phase in record.phases)
        why = "No layer is sampled yet." if samples and record.status != "finished" else "This run samples no layer."
        return Exhibit(key=key, title=title, caption=why)
    shown = layers[:MOST_BARS]
    stages: dict[int, list[int]] = {}
    for row, layer in enumerate(shown):
        if layer["frozen_in_phase"] is not None:
            stages.setdefault(layer["frozen_in_phase"], []).append(row)
    bands = {f"frozen from phase {phase + 1}": rows for phase, rows in sorted(stages.items())}
    frozen = "Bands: frozen first, frozen later." if bands else "This run froze nothing."
    caption = f"The most unstable first{of_all(shown, layers)}. {frozen}"
    return Exhibit(
        key=key,
        title=title,
        caption=caption,
        svg=layer_figure(
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
        to_come = any(phase.frozen for phase in record.phases) and record.status != "finished"
        why = "Nothing is frozen before AIWQ is sampled." if to_come else "This run froze nothing."
        return Exhibit(key=key, title=title, caption=why)
    done = len(record.metrics)
    freezing = [index for index, phase in enumerate(record.phases) if phase.frozen and ends[index] < done]
    spans = [
        [
            Span(layer["name"], ends[index], min(ends[index + 1], done))
            for index in freezing
            if layer["frozen_in_phase"] is not None and index >= layer["frozen_in_phase"]
        ]
        for layer in layers
    ]
    shown = layers[:MOST_BARS]
    phases = [
        Span(f"{phase.kind}{f' {phase.frozen}' if phase.frozen else ''}", ends[index], ends[index + 1])
        for index, phase in enumerate(record.phases)
        if index >= sampling
    ]
    return Exhibit(
        key=key,
        title=title,
        caption=f"Red: the layer's weight does not train{of_all(shown, layers)}. {BESIDE_WEIGHTS[record.config.profit.covers]}",
        svg=freeze_figure([layer["name"] for layer in shown], spans[: len(shown)], phases, key),
        columns=("layer", "from_epoch", "to_epoch"),
        rows=[(span.label, span.start, span.end) for row in spans for span in row],
    )


def _counted(phase: int | None) -> int | str:
    """Return a phase as people count, from 1."""
    return "" if phase is None else phase + 1
