"""Figures as SVG, from plain numbers: the only file that knows matplotlib.

A figure is one phone wide (420 CSS pixels), so that its text stays readable on one, and its text is text. Every colour is
one of `COLOURS`. In a page `inline` makes each colour a CSS variable, so that the figure follows the page into the dark.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from subfour.analysis.curves import Curve

COLOURS = {
    "ink": "#1f2328",
    "muted": "#59636e",
    "line": "#d1d9e0",
    "surface": "#ffffff",
    "red": "#c4281c",
    "blue": "#1f5fa8",
    "amber": "#8a5a00",
    "green": "#1b7742",
    "band": "#eff2f5",
    "frozen": "#f6d5d1",
    "frozen-later": "#fbebe9",
}
"""Name of the page's CSS variable -> value in light."""

SERIES = ("red", "blue", "amber", "green")
"""Colours of several curves, in order."""

KIND_COLOURS = {"depthwise": "red", "pointwise": "blue"}
"""Kind of layer -> colour; all others are muted."""

WIDTH = 4.4
"""Inches; matplotlib writes 72 points per inch, a browser shows 96 pixels."""

MARKERS = ("o", "s", "^", "D", "v")


class Span(NamedTuple):
    """Epochs that belong together; both ends are borders between epochs, counted from 0."""

    label: str
    start: int
    end: int


class Panel(NamedTuple):
    """One column of bars."""

    title: str
    values: Sequence[float]
    log: bool = False


class Point(NamedTuple):
    """One model in a plane of cost and accuracy."""

    group: str
    """Points of a group have one marker."""
    cost: float
    top1: float
    label: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """What enters a layer, and the levels that its quantizer has for it."""

    title: str
    values: Sequence[float]
    levels: Sequence[float]
    """Empty: too many to be told apart."""
    ends: tuple[float, float]
    """The lowest and the highest level."""


def inline(svg: str) -> str:
    """Return a figure for a page: colours become the page's variables, and what would clash between figures goes."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(?![mp][0-9a-f]{8})[^"]*"', "", svg)
    svg = re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg, count=1)
    for name, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{name}, {value})")
    return svg.replace("xlink:href", "href")


def loss_figure(curves: Sequence[Curve], widths: Sequence[Span], borders: Sequence[int], name: str) -> str:
    """Draw training and validation loss over the epochs, and once more the validation loss at the last widths.

    Args:
        curves: one per run.
        widths: the blocks of epochs at one pair of widths.
        borders: between phases, in epochs.
        name: of the figure, by which its parts are told from another's.
    """
    begins = widths[-1].start if len(widths) > 1 else 0
    with _style(name):
        figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
        validation, training, detail = figure.subplots(3, 1)
        panels = {"validation loss": validation, "training loss": training, f"validation, {widths[-1].label}": detail}
        for title, axis in panels.items():
            axis.set_ylabel(title)
            first = begins if axis is detail else 0
            for index, curve in enumerate(curves):
                losses = curve.training if axis is training else curve.validation
                shown = [loss if math.isfinite(loss) and loss > 0 else math.nan for loss in losses]
                marker = "o" if len(shown) - first == 1 else ""  # a line of one point is invisible
                style: dict[str, Any] = {"marker": marker, "markersize": 4, "linewidth": 1.4, "color": _series(index)}
                axis.plot(curve.epochs[first:], shown[first:], label=curve.label, **style)
            for index, span in enumerate(widths):
                if index % 2 == 0 and axis is not detail:
                    axis.axvspan(span.start + 0.5, span.end + 0.5, color=COLOURS["band"], zorder=0, linewidth=0)
            for border in borders:
                if border >= first:
                    axis.axvline(border + 0.5, color=COLOURS["line"], linewidth=0.6, zorder=1)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in (validation, training):
            axis.set_yscale("log")
        _name_spans(validation, widths)
        training.legend(loc="upper right")
        detail.set_xlabel("epoch")
        return _svg(figure)


def histogram_figure(histograms: Sequence[Histogram], name: str) -> str:
    """Draw what enters each layer, and the levels in red."""
    with _style(name):
        rows = math.ceil(len(histograms) / 2)
        figure, axes = _grid(rows, 2, height=1.35 * rows + 0.2, sharex=False)
        for axis in axes[len(histograms) :]:
            axis.set_axis_off()
        for axis, histogram in zip(axes, histograms, strict=False):
            low, high = histogram.ends
            margin = 0.35 * (high - low) or 1.0
            inside = [value for value in histogram.values if low - margin <= value <= high + margin]
            axis.hist(inside, bins=60, color=COLOURS["muted"], log=bool(inside))
            for level in histogram.levels:
                axis.axvline(level, color=COLOURS["red"], linewidth=0.8)
            if not histogram.levels:
                axis.axvspan(low, high, ymax=0.06, color=COLOURS["red"], linewidth=0)
            axis.set_title(histogram.title, fontsize=7.5)
            axis.set_yticks([])
            axis.minorticks_off()
            axis.tick_params(labelsize=7.5)
        return _svg(figure)


def tradeoff_figure(planes: Mapping[str, tuple[Sequence[Point], Sequence[Point]]], name: str) -> str:
    """Draw accuracy against costs, one above the other.

    Args:
        planes: name of a cost -> our points, red and labelled, and published points, blue.
        name: of the figure.
    """
    with _style(name):
        figure, axes = _grid(len(planes), 1, height=2.9 * len(planes), sharex=False)
        for axis, (cost, (ours, published)) in zip(axes, planes.items(), strict=True):
            groups = list(dict.fromkeys(point.group for point in published))
            for group, marker in zip(groups, MARKERS, strict=False):
                points = [point for point in published if point.group == group]
                x, y = [point.cost for point in points], [point.top1 for point in points]
                axis.scatter(x, y, s=18, marker=marker, color=COLOURS["blue"], label=group, linewidth=0)
            for group, marker in zip(dict.fromkeys(point.group for point in ours), MARKERS, strict=False):
                points = sorted((point for point in ours if point.group == group), key=lambda point: point.cost)
                x, y = [point.cost for point in points], [point.top1 for point in points]
                axis.plot(x, y, marker=marker, markersize=4, linewidth=0.8, color=COLOURS["red"], label=group)
                if group == ours[0].group:  # several runs at the same widths have the same costs
                    for index, point in enumerate(points):  # in turn above and below, so that neighbours do not touch
                        axis.annotate(
                            point.label,
                            (point.cost, point.top1),
                            (0, 5 if index % 2 else -5),
                            textcoords="offset points",
                            ha="center",
                            va="bottom" if index % 2 else "top",
                            rotation=90,
                            fontsize=7,
                            color=COLOURS["red"],
                        )
            axis.set_xscale("log")
            axis.set_xlabel(cost)
            axis.set_ylabel("top-1 %")
            axis.margins(0.1, 0.28)  # room for the labels; no tick says more than 100 %
            axis.set_yticks([tick for tick in axis.get_yticks() if 0 <= tick <= 100])
        axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure)


def layer_figure(
    names: Sequence[str], kinds: Sequence[str], panels: Sequence[Panel], name: str, bands: Sequence[Span] = ()
) -> str:
    """Draw one bar per layer, from the top down, in one column or several.

    Args:
        names: of the layers.
        kinds: depthwise layers are red, pointwise blue, all others grey.
        panels: one per column.
        name: of the figure.
        bands: rows that belong together, counted from 0; shaded in turn.
    """
    with _style(name):
        figure, axes = _grid(1, len(panels), height=0.155 * len(names) + 1.1, sharey=True)
        rows = range(len(names))
        shaded = list(zip(bands, ("frozen", "frozen-later"), strict=False))
        colours = [COLOURS[KIND_COLOURS.get(kind, "muted")] for kind in kinds]
        for axis, panel in zip(axes, panels, strict=True):
            axis.barh(rows, panel.values, color=colours, height=0.72)
            axis.set_title(panel.title, fontsize=8.5)
            if panel.log and any(value > 0 for value in panel.values):
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 3) if len(panels) == 1 else (1,), numticks=6 // len(panels)))
                axis.xaxis.set_major_formatter("{x:g}")
                axis.xaxis.set_minor_locator(NullLocator())
            axis.tick_params(axis="x", labelsize=7.5)
            for band, shade in shaded:
                axis.axhspan(band.start - 0.5, band.end - 0.5, color=COLOURS[shade], zorder=0, linewidth=0)
        axes[0].set_yticks(rows, names, fontsize=7)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        _name_kinds(figure, kinds, [(band.label, shade) for band, shade in shaded])
        return _svg(figure)


def range_figure(panels: Mapping[str, Mapping[str, Sequence[float]]], kinds: Mapping[str, str], name: str) -> str:
    """Draw how ranges move, relative to where each began: one line per layer.

    Args:
        panels: title -> layer -> its range over the epochs, relative; NaN where it has none.
        kinds: of the layers; colours as in `layer_figure`.
        name: of the figure.
    """
    with _style(name):
        figure, axes = _grid(len(panels), 1, height=2.2 * len(panels) + 0.3)
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            axis.set_title(title, fontsize=8.5)
            axis.axhline(1, color=COLOURS["line"], linewidth=1)
            for layer, values in lines.items():
                colour = COLOURS[KIND_COLOURS.get(kinds.get(layer, ""), "muted")]
                axis.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.8, alpha=0.8)
            axis.set_ylabel("relative")
        axes[-1].set_xlabel("epoch")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        _name_kinds(figure, list(kinds.values()))
        return _svg(figure)


def freeze_figure(names: Sequence[str], frozen: Sequence[Sequence[Span]], phases: Sequence[Span], name: str) -> str:
    """Draw when each layer was frozen.

    Args:
        names: of the layers, from the top down.
        frozen: the epochs in which each was.
        phases: to be named above.
        name: of the figure.
    """
    with _style(name):
        figure, (axis,) = _grid(1, 1, height=0.155 * len(names) + 1.3)
        for row, spans in enumerate(frozen):
            axis.broken_barh([(span.start, span.end - span.start) for span in spans], (row - 0.4, 0.8), color=COLOURS["red"])
        for phase in phases:
            axis.axvline(phase.start, color=COLOURS["line"], linewidth=0.6)
        axis.set_xlim(phases[0].start, phases[-1].end)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlabel("epochs done")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _name_spans(axis, phases, shift=0.0)
        return _svg(figure)


def _series(index: int) -> str:
    return COLOURS[SERIES[index % len(SERIES)]]


def _style(name: str) -> AbstractContextManager[None]:
    """Return the look of a figure for a `with` block; its name makes the ids in it its own."""
    ink, muted, line = COLOURS["ink"], COLOURS["muted"], COLOURS["line"]
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.size": 8.5,
            "text.color": ink,
            "axes.labelcolor": ink,
            "axes.edgecolor": muted,
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 8.5,
            "xtick.color": muted,
            "ytick.color": muted,
            "xtick.labelcolor": ink,
            "ytick.labelcolor": ink,
            "grid.color": line,
            "figure.facecolor": COLOURS["surface"],
            "legend.frameon": False,
            "legend.fontsize": 8,
        }
    )


def _grid(rows: int, columns: int, *, height: float, sharex: bool = True, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex and columns == 1, sharey=sharey)
    return figure, list(axes.flat)


def _name_spans(axis: Axes, spans: Sequence[Span], shift: float = 0.5) -> None:
    """Write the names of spans above an axis."""
    for span in spans:
        middle = (span.start + span.end) / 2 + shift
        axis.text(
            middle,
            1.02,
            span.label,
            transform=axis.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7,
            color=COLOURS["muted"],
        )


def _name_kinds(figure: Figure, kinds: Sequence[str], others: Sequence[tuple[str, str]] = ()) -> None:
    """Write below a figure what its colours are: kinds of layers, and other (name, colour) pairs."""
    names = [kind for kind in KIND_COLOURS if kind in kinds] + ["other layers"] * bool({*kinds} - {*KIND_COLOURS})
    pairs = [*((name, KIND_COLOURS.get(name, "muted")) for name in names), *others]
    patches = [Patch(color=COLOURS[colour], label=name) for name, colour in pairs]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(3, len(patches)))


def _svg(figure: Figure) -> str:
    """Return the SVG file; the same numbers give the same bytes."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
