"""What every figure shares: colours, text, size, and the way into a page.

A figure is one phone wide (420 CSS pixels), so that its text stays readable on one, and its text is text. Every colour is
one of `COLOURS`. In a page `inline` makes each colour a CSS variable, so that the figure follows the page into the dark.
"""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

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


class Span(NamedTuple):
    """Epochs that belong together; both ends are borders between epochs, counted from 0."""

    label: str
    start: int
    end: int


def inline(svg: str) -> str:
    """Return a figure for a page: colours become the page's variables, and what would clash between figures goes."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(?![mp][0-9a-f]{8})[^"]*"', "", svg)
    svg = re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg, count=1)
    for name, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{name}, {value})")
    return svg.replace("xlink:href", "href")


def figure_style(name: str) -> AbstractContextManager[None]:
    """Return the look of a figure for a `with` block; its name makes the ids in it its own."""
    ink, muted, line = COLOURS["ink"], COLOURS["muted"], COLOURS["line"]
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "text.parse_math": False,  # names of runs are the user's
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


def grid(
    rows: int,
    columns: int,
    *,
    height: float,
    sharex: bool = True,
    sharey: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, row by row; `height` in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    sharex = sharex and columns == 1
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey, height_ratios=height_ratios)
    return figure, list(axes.flat)


def plain_numbers(axis: Axis) -> None:
    """Write plain numbers along a logarithmic axis on which all is drawn; less than a decade has no power of ten to show."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(MaxNLocator(6) if high < 10 * low else LogLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_label(name: str) -> str:
    """Return a name as a legend shows it: matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def series_colour(index: int) -> str:
    """Return the colour of a curve; after the last one they begin again."""
    return COLOURS[SERIES[index % len(SERIES)]]


def name_spans(axis: Axes, spans: Sequence[Span], shift: float = 0.5) -> None:
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


def name_kinds(figure: Figure, kinds: Sequence[str], others: Sequence[tuple[str, str]] = ()) -> None:
    """Write below a figure what its colours are: kinds of layers, and other (name, colour) pairs."""
    names = [kind for kind in KIND_COLOURS if kind in kinds] + ["other layers"] * bool({*kinds} - {*KIND_COLOURS})
    pairs = [*((name, KIND_COLOURS.get(name, "muted")) for name in names), *others]
    patches = [Patch(color=COLOURS[colour], label=name) for name, colour in pairs]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(3, len(patches)))


def svg_file(figure: Figure) -> str:
    """Return the SVG file; the same numbers give the same bytes."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
