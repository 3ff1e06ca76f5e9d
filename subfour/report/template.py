"""From values to a page: the templates beside this file, one style sheet for all, and how numbers are written."""

import math
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from subfour.analysis.figures.style import inline
from subfour.durable import write_atomically
from subfour.report.exhibits.exhibit import Exhibit

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def write_page(template: str, out: Path, exhibits: Sequence[Exhibit], folder: Path, **values: Any) -> None:
    """Write a page, and its figures as SVG and CSV beside it.

    Args:
        template: file name.
        out: the page.
        exhibits: all that the page shows.
        folder: for the SVG and CSV files.
        values: of the template's variables.

    Raises:
        OSError: a file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("subfour.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda svg: Markup(inline(svg))  # our own SVG; matplotlib escapes its text
    figures = os.path.relpath(folder, out.parent).replace(os.sep, "/")
    page = environment.get_template(template).render(figures=figures, version=version("subfour"), **values)
    folder.mkdir(parents=True, exist_ok=True)
    for exhibit in exhibits:
        if exhibit.svg:
            write_atomically(folder / f"{exhibit.key}.svg", exhibit.svg.encode())
            write_atomically(folder / f"{exhibit.key}.csv", exhibit.csv.encode())
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode())


def scaled(value: float, unit: str) -> str:
    """Return a number with three digits and the prefix that fits."""
    factor, prefix = next((factor, prefix) for factor, prefix in PREFIXES if value >= factor)
    return f"{value / factor:.3g} {prefix}{unit}".rstrip()


def shown(value: object) -> str:
    """Return a value for a table, a number with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "not finite"
    return str(value)
