"""Tables for the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under columns; numbers are aligned right, fractions shortened.

    Args:
        console: where to.
        title: above the table.
        columns: their headings.
        rows: as many values each as there are columns.
    """
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)


def print_result(console: Console, result: dict[str, Any], run: Path) -> None:
    """Print what a run reached, where it lies, and what to type next."""
    rows = []
    for row in result["rows"]:
        raw, averaged = row["raw"], row["averaged"]
        rows.append(
            (
                row["widths"].replace("A32W32", "float"),
                f"{averaged['top1']:.2f}",
                f"{averaged['top5']:.2f}",
                f"{raw['top1']:.2f}",
                f"{averaged['loss']:.3f}",
                f"{row['bytes'] / 1e6:.3f}",
            )
        )
    title = f"{result['recipe']}: {result['model']}, {result['quantizer']}, method {result['method']}, seed {result['seed']}"
    print_table(console, title, ("widths", "top-1 %", "top-5 %", "raw top-1 %", "loss", "size MB"), rows)
    if padding := result["padding_top1"]:
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f} %" for name, value in padding.items())
        console.print(f"top-1 and negative padding: {shown}", highlight=False)
    console.print(f"\nThe run lies in {run}. Next:", highlight=False)
    console.print(f"  subfour evaluate {run}\n  subfour inspect {run}\n  subfour sensitivity {run}", highlight=False)
    console.print("  subfour train digits --data folder:PHOTOS --loading.image-size 64    your own photographs", highlight=False)
