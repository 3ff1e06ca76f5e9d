"""The rows of a study: a dot per seed, mean and spread."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from subfour.analysis.figures.style import COLOURS, figure_style, grid, svg_file

REACH = 3.0
"""An axis ends at this many times the median row, so that one that failed does not press the others together."""


class Dots(NamedTuple):
    """One row."""

    name: str
    values: Sequence[float]
    """One per finished run."""
    note: str = ""
    """Why there are none."""


def study_figure(groups: Mapping[str, Sequence[Dots]], measure: str, name: str) -> str:
    """Draw one panel per group, its rows from the top down in the order given.

    Args:
        groups: title -> rows.
        measure: what the values are.
        name: of the figure.
    """
    with figure_style(name):
        heights = [len(rows) + 2.5 for rows in groups.values()]
        figure, axes = grid(len(groups), 1, height=0.17 * sum(heights) + 0.4, sharex=False, height_ratios=heights)
        for axis, (title, rows) in zip(axes, groups.items(), strict=True):
            axis.set_title(title, loc="left", fontweight="bold")
            axis.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=7)
            axis.set_ylim(len(rows) - 0.4, -0.6)
            limit = _limit([fmean(row.values) for row in rows if row.values])
            for place, row in enumerate(rows):
                _draw_row(axis, place, row, limit)
            if math.isfinite(limit):
                axis.set_xlim(right=limit)
            axis.margins(x=0.06)
            axis.tick_params(axis="x", labelsize=7.5)
            axis.tick_params(axis="y", length=0)
            axis.xaxis.set_major_locator(MaxNLocator(6))
            axis.grid(axis="x", linewidth=0.5)
            axis.set_axisbelow(True)
        axes[-1].set_xlabel(measure)
        return svg_file(figure)


def _limit(means: Sequence[float]) -> float:
    """Return where an axis ends: nowhere, unless a row lies far outside."""
    usual = REACH * median(means) if means else 0.0
    return usual if 0 < usual < max(means, default=0.0) else math.inf


def _draw_row(axis: Axes, place: int, row: Dots, limit: float) -> None:
    beside = axis.get_yaxis_transform()
    if not row.values:
        axis.text(0.02, place, row.note, transform=beside, va="center", fontsize=7, color=COLOURS["amber"])
        return
    mean, spread = fmean(row.values), stdev(row.values) if len(row.values) > 1 else 0.0
    axis.text(1.02, place, f"{mean:.2f}", transform=beside, va="center", fontsize=7)
    if mean > limit:
        axis.text(0.98, place, "beyond", transform=beside, va="center", ha="right", fontsize=7, color=COLOURS["amber"])
        return
    axis.plot([mean - spread, mean + spread], [place, place], color=COLOURS["blue"], linewidth=1.2)
    axis.plot(row.values, [place] * len(row.values), "o", markersize=3, color=COLOURS["muted"], markeredgewidth=0)
    axis.plot([mean], [place], "|", markersize=9, markeredgewidth=1.8, color=COLOURS["red"])
