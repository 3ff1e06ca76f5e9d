"""Tables as aligned text: one line per row however narrow the terminal, so that they can be piped, searched and pasted."""

from collections.abc import Sequence

from rich.console import Console

GAP = "  "


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under columns; numbers are aligned right, fractions shortened to 4 digits or to whole numbers.

    Args:
        console: where to.
        title: above the table.
        columns: their headings.
        rows: as many values each as there are columns; None leaves a gap.
    """
    lines = [columns, *([_text(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [all(_is_number(value) for value in column) for column in zip(*lines[1:], strict=True)] or [False] * len(columns)
    console.print(title, style="bold")
    for index, line in enumerate(lines):
        cells = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        console.print(GAP.join(cells).rstrip(), style="bold" if index == 0 else None)


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
