"""Figures over the epochs of a run: losses, ranges, what was frozen when."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from subfour.analysis.curves import Curve
from subfour.analysis.figures.style import (
    COLOURS,
    KIND_COLOURS,
    Span,
    figure_style,
    grid,
    legend_label,
    name_kinds,
    name_spans,
    plain_numbers,
    series_colour,
    svg_file,
)

DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (9, 3)))
"""Of several curves, in order: five of them and four colours, so that twenty can be told apart, also without colours."""


def loss_figure(curves: Sequence[Curve], widths: Sequence[Span], borders: Sequence[int], name: str) -> str:
    """Draw training and validation loss over the epochs, and once more the validation loss at the last widths.

    Args:
        curves: one per run.
        widths: the blocks of epochs at one pair of widths.
        borders: between phases, in epochs.
        name: of the figure, by which its parts are told from another's.
    """
    begins = widths[-1].start if len(widths) > 1 else 0
    with figure_style(name):
        figure, (validation, training, detail) = grid(3, 1, height=6.4, sharex=False)
        panels = {"validation loss": validation, "training loss": training, f"validation, {widths[-1].label}": detail}
        for title, axis in panels.items():
            axis.set_ylabel(title)
            first = begins if axis is detail else 0
            for index, curve in enumerate(curves):
                points = [point for point in (curve.training if axis is training else curve.validation) if point[0] > first]
                places = [place for place, _ in points]
                losses = [loss if math.isfinite(loss) and loss > 0 else math.nan for _, loss in points]
                marker = "o" if len(points) == 1 else ""  # a line of one point is invisible
                dashes = DASHES[index % len(DASHES)]  # curves that are one for a while are both seen
                style: dict[str, Any] = {"marker": marker, "markersize": 4, "linewidth": 1.4, "linestyle": dashes}
                axis.plot(places, losses, label=legend_label(curve.label), color=series_colour(index), **style)
            for index, span in enumerate(widths):
                if index % 2 == 0 and axis is not detail:
                    axis.axvspan(span.start + 0.5, span.end + 0.5, color=COLOURS["band"], zorder=0, linewidth=0)
            for border in borders:
                if border >= first:
                    axis.axvline(border + 0.5, color=COLOURS["line"], linewidth=0.6, zorder=1)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in (validation, training):
            axis.set_yscale("log")
            plain_numbers(axis.yaxis)
        name_spans(validation, widths)
        training.legend(loc="upper right")
        detail.set_xlabel("epoch")
        return svg_file(figure)


def range_figure(panels: Mapping[str, Mapping[str, Sequence[float]]], kinds: Mapping[str, str], name: str) -> str:
    """Draw how ranges move, relative to where each began: one line per layer.

    Args:
        panels: title -> layer -> its range over the epochs, relative; NaN where it has none.
        kinds: of the layers; colours as in `layer_figure`.
        name: of the figure.
    """
    with figure_style(name):
        figure, axes = grid(len(panels), 1, height=2.2 * len(panels) + 0.3)
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            axis.set_title(title, fontsize=8.5)
            axis.axhline(1, color=COLOURS["line"], linewidth=1)
            for layer, values in lines.items():
                colour = COLOURS[KIND_COLOURS.get(kinds.get(layer, ""), "muted")]
                axis.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.8, alpha=0.8)
            axis.set_ylabel("relative")
        axes[-1].set_xlabel("epoch")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        name_kinds(figure, list(kinds.values()))
        return svg_file(figure)


def freeze_figure(names: Sequence[str], frozen: Sequence[Sequence[Span]], phases: Sequence[Span], name: str) -> str:
    """Draw when each layer was frozen.

    Args:
        names: of the layers, from the top down.
        frozen: the epochs in which each was.
        phases: to be named above.
        name: of the figure.
    """
    with figure_style(name):
        figure, (axis,) = grid(1, 1, height=0.155 * len(names) + 1.3)
        for row, spans in enumerate(frozen):
            axis.broken_barh([(span.start, span.end - span.start) for span in spans], (row - 0.4, 0.8), color=COLOURS["red"])
        for phase in phases:
            axis.axvline(phase.start, color=COLOURS["line"], linewidth=0.6)
        axis.set_xlim(phases[0].start, phases[-1].end)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlabel("epochs done")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        name_spans(axis, phases, shift=0.0)
        return svg_file(figure)
