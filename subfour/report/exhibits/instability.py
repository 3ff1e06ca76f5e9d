"""AIWQ of the layers, and what was frozen when."""

import math
from itertools import accumulate, groupby

from subfour.analysis.figures.epochs import freeze_figure
from subfour.analysis.figures.layers import Panel, layer_figure
from subfour.analysis.figures.style import Span
from subfour.report.exhibits.exhibit import MOST_BARS, Exhibit, of_all
from subfour.report.record import RunRecord


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
        why = "Nothing is frozen before AIWQ is sampled." if record.config.freezes_layers else "This run froze nothing."
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
        caption=f"Red: the layer's weight does not train{of_all(shown, layers)}. Batch norm and ranges go on.",
        svg=freeze_figure([layer["name"] for layer in shown], spans[: len(shown)], phases, key),
        columns=("layer", "from_epoch", "to_epoch"),
        rows=[(span.label, span.start, span.end) for row in spans for span in row],
    )


def _counted(phase: int | None) -> int | str:
    """Return a phase as people count, from 1."""
    return "" if phase is None else phase + 1
