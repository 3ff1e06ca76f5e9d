"""Train digits down to 4 bits with PROFIT, from Python: the whole method in half a minute.

    python examples/02_profit_digits.py [runs/example]

A run is data: take a recipe and change what you like. The folder becomes an ordinary run directory: `subfour evaluate`,
`inspect`, `sensitivity` and `train --resume` work on it, as `resume` of the same module does.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from subfour.profit.config import RunConfig
from subfour.profit.observer import Observer
from subfour.profit.phases import Phase
from subfour.profit.run import train
from subfour.recipes import load_recipe


class Watcher(Observer):
    """Prints a line per phase and per epoch."""

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Name the phase and how much no longer trains."""
        print(f"{phase.kind} {phase.widths}, {len(frozen)} layers frozen")

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Print some of what also lands in metrics.jsonl."""
        print(f"  epoch {record['epoch']}: loss {record['train_loss']:.3f}, top-1 {record['averaged']['top1']:.2f} %")


def shortened(recipe: RunConfig) -> RunConfig:
    """Return a recipe that goes straight to 4 bits, in few epochs."""
    schedule = replace(recipe.schedule, float_epochs=4, finetune_epochs=1, stabilize_epochs=0, batch_size=32)
    loading = replace(recipe.loading, augment="none", workers=0)
    return replace(recipe, recipe="example", activation_bits=(4,), weight_bits=(4,), schedule=schedule, loading=loading)


def main(out: str) -> None:
    """Train, and print what was reached at each pair of widths."""
    for row in train(shortened(load_recipe("digits")), Path(out), observer=Watcher())["rows"]:
        widths = f"{row['widths']} snapped" if row["snapped"] else row["widths"]
        print(f"{widths}: top-1 {row['averaged']['top1']:.2f} %, {row['bytes'] / 1e6:.3f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["runs/example"])
