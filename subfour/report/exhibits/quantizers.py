"""What the quantizers do to what they meet: levels (F3), errors, codes."""

from collections.abc import Sequence

from subfour.analysis.activations import QuantizerSample
from subfour.analysis.figures.layers import Histogram, Panel, histogram_figure, layer_figure
from subfour.report.exhibits.exhibit import MOST_BARS, Exhibit, of_all

MOST_HISTOGRAMS = 12

NO_INPUT = "No input of a layer is quantized with a range for the whole tensor."

MOST_LEVELS = 32
"""Levels drawn one by one; more run into each other."""


def histogram_exhibit(samples: Sequence[QuantizerSample], reason: str) -> Exhibit:
    """F3: what enters the quantizers, with their levels; h-swish layers first."""
    key, title = "f3-levels", "What enters the quantizers, and their levels"
    order = ("hswish", "unsigned", "signed")
    inputs = [sample for sample in samples if sample.role == "activation" and sample.kind != "stem"]
    if not inputs:
        return Exhibit(key=key, title=title, caption=reason or NO_INPUT)
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
        svg=histogram_figure(histograms, key),
        columns=("layer", "domain", "what", "value", "count"),
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
        caption=f"Mean squared error over mean square{of_all(shown, by_layer)}: 0.01 is one percent of the power.",
        svg=layer_figure(shown, [_kind(by_layer[name]) for name in shown], panels, key),
        columns=("layer", "role", "bits", "relative_error"),
        rows=[(sample.layer, sample.role, sample.quantizer.bits, sample.error) for sample in samples],
    )


def code_exhibit(samples: Sequence[QuantizerSample], reason: str) -> Exhibit:
    """Dead codes and saturated values of the inputs."""
    key, title = "codes", "Dead codes and saturated values"
    inputs = [sample for sample in samples if sample.role == "activation"]
    if not inputs:
        return Exhibit(key=key, title=title, caption=reason or NO_INPUT)
    worst = sorted(inputs, key=lambda sample: -(sample.dead_share + sample.saturated_share))[:MOST_BARS]
    shown = [sample for sample in inputs if sample in worst]
    return Exhibit(
        key=key,
        title=title,
        caption=f"Share of codes that no value has, and of values beyond the range{of_all(shown, inputs)}. "
        "8-bit inputs have more codes than they need.",
        svg=layer_figure(
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


def _by_layer(samples: Sequence[QuantizerSample]) -> dict[str, dict[str, QuantizerSample]]:
    by_layer: dict[str, dict[str, QuantizerSample]] = {}
    for sample in samples:
        by_layer.setdefault(sample.layer, {})[sample.role] = sample
    return by_layer


def _kind(roles: dict[str, QuantizerSample]) -> str:
    return next(iter(roles.values())).kind
