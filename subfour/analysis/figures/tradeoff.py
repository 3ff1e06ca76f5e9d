"""Accuracy against cost."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

from subfour.analysis.figures.style import COLOURS, figure_style, grid, legend_label, plain_numbers, svg_file

MARKERS = ("o", "s", "^", "D", "v")


class Point(NamedTuple):
    """One model in a plane of cost and accuracy."""

    group: str
    """Points of a group have one marker."""
    cost: float
    top1: float
    label: str = ""


def tradeoff_figure(planes: Mapping[str, tuple[Sequence[Point], Sequence[Point]]], name: str) -> str:
    """Draw accuracy against costs, one above the other.

    Args:
        planes: name of a cost -> our points, red and labelled, and published points, blue.
        name: of the figure.
    """
    with figure_style(name):
        figure, axes = grid(len(planes), 1, height=2.9 * len(planes), sharex=False)
        for axis, (cost, (ours, published)) in zip(axes, planes.items(), strict=True):
            groups = list(dict.fromkeys(point.group for point in published))
            for group, marker in zip(groups, cycle(MARKERS), strict=False):
                points = [point for point in published if point.group == group]
                x, y = [point.cost for point in points], [point.top1 for point in points]
                axis.scatter(x, y, s=18, marker=marker, color=COLOURS["blue"], label=group, linewidth=0)
            for group, marker in zip(dict.fromkeys(point.group for point in ours), cycle(MARKERS), strict=False):
                points = sorted((point for point in ours if point.group == group), key=lambda point: point.cost)
                x, y = [point.cost for point in points], [point.top1 for point in points]
                axis.plot(x, y, marker=marker, markersize=4, linewidth=0.8, color=COLOURS["red"], label=legend_label(group))
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
            plain_numbers(axis.xaxis)
            axis.set_xlabel(cost)
            axis.set_ylabel("top-1 %")
            axis.margins(0.1, 0.28)  # room for the labels; no tick says more than 100 %
            axis.set_yticks([tick for tick in axis.get_yticks() if 0 <= tick <= 100])
        axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return svg_file(figure)
