"""The end of a run: what it reached, where it lies, and what to type next."""

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from subfour.cli.tables import print_table
from subfour.ops import widths_name
from subfour.profit.result import SENSITIVITY_FILE


def print_summary(console: Console, result: dict[str, Any], run: Path) -> None:
    """Print the content of a result.json; the commands below it can be pasted as they are.

    Args:
        console: where to.
        result: of a finished run.
        run: its directory.
    """
    rows = [
        (
            label(row),
            f"{row['averaged']['top1']:.2f}",
            f"{row['averaged']['top5']:.2f}",
            f"{row['raw']['top1']:.2f}",
            f"{row['averaged']['loss']:.3f}",
            f"{row['bytes'] / 1e6:.3f}",
        )
        for row in result["rows"]
    ]
    title = f"{result['recipe']}: {result['model']}, {result['quantizer']}, method {result['method']}, seed {result['seed']}"
    console.print()
    print_table(console, title, ("widths", "top-1 %", "top-5 %", "raw top-1 %", "loss", "size MB"), rows)
    if padding := result["padding_top1"]:
        names = {"before": "before", "after": "with it", "after_float": "after the float phase"}
        shown = ", ".join(f"{value:.2f} % {names[name]}" for name, value in padding.items())
        console.print(f"top-1 and negative padding: {shown}")
    place = shlex.quote(str(run))
    commands = [f"{name} {place}" for name in ("report", "evaluate", "inspect")]
    if (run / SENSITIVITY_FILE).exists():
        commands.append(f"sensitivity {place}")
    if result["rows"][-1].get("snapped"):
        exported = shlex.quote(f"{run}.onnx")
        commands += [f"export {place} --out {exported}", f"verify {exported} --run {place}"]
    console.print(f"\nThe run lies in {run}. Next:\n")
    for command in commands:
        console.print(f"  subfour {command}")
    if result["data"] == "digits":
        console.print("\nThe same on your own photographs, in PHOTOS/train/CLASS/ and PHOTOS/val/CLASS/:\n")
        options = "--loading.image-size 64 --loading.augment crop-flip --schedule.batch-size 8"
        console.print(f"  subfour train digits --data folder:PHOTOS {options}")


def label(row: dict[str, Any]) -> str:
    """Return what a row of a result is called: its widths, and whether it was snapped."""
    return widths_name(row["weight_bits"], row["activation_bits"], snapped=row.get("snapped", False))
