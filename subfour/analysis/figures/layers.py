"""Figures of single layers: a bar for each, and what enters its quantizer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

from matplotlib.ticker import LogLocator, NullLocator

from subfour.analysis.figures.style import COLOURS, KIND_COLOURS, figure_style, grid, name_kinds, svg_file


class Panel(NamedTuple):
    """One column of bars."""

    title: str
    values: Sequence[float]
    log: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """What enters a layer, and the levels that its quantizer has for it."""

    title: str
    values: Sequence[float]
    levels: Sequence[float]
    """Empty: too many to be told apart."""
    ends: tuple[float, float]
    """The lowest and the highest level."""


def layer_figure(
    names: Sequence[str],
    kinds: Sequence[str],
    panels: Sequence[Panel],
    name: str,
    bands: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Draw one bar per layer, from the top down, in one column or several.

    Args:
        names: of the layers.
        kinds: depthwise layers are red, pointwise blue, all others grey.
        panels: one per column.
        name: of the figure.
        bands: name -> rows that belong together, counted from 0; shaded in turn.
    """
    with figure_style(name):
        figure, axes = grid(1, len(panels), height=0.155 * len(names) + 1.1, sharey=True)
        rows = range(len(names))
        shaded = list(zip((bands or {}).items(), cycle(("frozen", "frozen-later")), strict=False))
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
            for (_, band), shade in shaded:
                for row in band:
                    axis.axhspan(row - 0.5, row + 0.5, color=COLOURS[shade], zorder=0, linewidth=0)
        axes[0].set_yticks(rows, names, fontsize=7)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        name_kinds(figure, kinds, [(label, shade) for (label, _), shade in shaded])
        return svg_file(figure)


def histogram_figure(histograms: Sequence[Histogram], name: str) -> str:
    """Draw what enters each layer, and the levels in red."""
    with figure_style(name):
        rows = math.ceil(len(histograms) / 2)
        figure, axes = grid(rows, 2, height=1.35 * rows + 0.2, sharex=False)
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
        return svg_file(figure)
