"""What a figure is in the report: what it shows, in words, as SVG, and as a table of its numbers.

A figure that cannot be drawn says why instead: older runs lack the ranges, unfinished ones the network.
"""

import csv
import io
from collections.abc import Sequence, Sized
from dataclasses import dataclass

MOST_BARS = 60
"""Layers in one figure; its table has them all."""


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


def of_all(shown: Sequence[object], everything: Sized) -> str:
    """Return what a caption adds where only some of the layers are drawn."""
    count = len(everything)
    return "" if len(shown) == count else f", {len(shown)} of {count} layers; the table has all"
