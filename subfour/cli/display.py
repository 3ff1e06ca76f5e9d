"""What people see while a run trains: a line per finished epoch, and in a terminal two bars with the time left below them."""

import time
from collections.abc import Sequence
from math import ceil
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from subfour.ops import widths_key
from subfour.profit.observer import Observer
from subfour.profit.phases import Phase

ROW = "{:>5}  {:<9}  {:<6}  {:>6}  {:>5}  {:>5}  {:>5}  {:>6}  {:>7}  {:>7}"
"""One epoch in 79 columns."""

HEADINGS = ("phase", "kind", "widths", "frozen", "epoch", "loss", "val", "top-1", "average", "time")
"""Frozen layers; training and validation loss; validation top-1 in percent of raw and averaged weights; time of the run."""

EPOCHS_REMEMBERED = 2
"""How far back the time per step is averaged: long enough to hold evaluations, short enough to follow a change of phase."""


class ProgressDisplay(Observer):
    """An observer of a run that draws and prints."""

    def __init__(self, console: Console, phases: Sequence[Phase], steps_per_epoch: int) -> None:
        """Lay out the display.

        Args:
            console: where it is drawn.
            phases: of the run.
            steps_per_epoch: training steps.
        """
        self.console, self.phases, self.steps = console, phases, steps_per_epoch
        self.title = ""
        self.phase_begun = False
        self.heading = Text("", style="bold", no_wrap=True, overflow="ellipsis")
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("epoch {task.fields[epoch]}"),
            TextColumn("{task.fields[left]} left"),
            expand=True,
        )
        self.phase_bar = self.bars.add_task("phase", total=None, epoch="", left="?")
        self.run_bar = self.bars.add_task("run", total=steps_per_epoch * _epochs(phases), epoch="", left="?")
        self.live = Live(Group(self.heading, self.bars), console=console)
        self.pace = Pace(decay=1 - 1 / (EPOCHS_REMEMBERED * steps_per_epoch))

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.live.start()
        self.console.print(ROW.format(*HEADINGS), style="bold")
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Show which phase this is, and how far it and the run have come."""
        self.title = f"phase {index + 1} of {len(self.phases)}: {phase.kind} {phase.widths}, {len(frozen)} layers frozen"
        self.heading.plain = self.title
        self.phase_begun = True
        self.bars.update(self.phase_bar, total=phase.epochs * self.steps)
        self._move(self.phase_bar, next_epoch * self.steps)
        self._move(self.run_bar, (_epochs(self.phases[:index]) + next_epoch) * self.steps)

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """Advance both bars."""
        self.pace.step()
        self.heading.plain = f"{self.title}, loss {loss:.3f}, top-1 {top1:.1f} %"
        done = step + 1 if self.phase_begun else 1  # a run that goes on may begin in the middle of an epoch
        self.phase_begun = False
        for bar in (self.phase_bar, self.run_bar):
            self._move(bar, int(self.bars.tasks[bar].completed) + done)

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Print one line."""
        raw, averaged = record["raw"], record["averaged"]
        self.console.print(
            ROW.format(
                f"{record['phase'] + 1}/{len(self.phases)}",
                record["kind"],
                widths_key(record["weight_bits"], record["activation_bits"]),
                record["frozen_layers"],
                f"{record['epoch'] + 1}/{record['epochs']}",
                _loss(record["train_loss"]),
                _loss(raw["loss"]),
                f"{raw['top1']:.2f}",
                f"{averaged['top1']:.2f}",
                duration(record["seconds"]),
            )
        )

    def _move(self, bar: TaskID, done: int) -> None:
        """Set how many steps are done, and what follows from that."""
        total = int(self.bars.tasks[bar].total or 0)
        self.bars.update(
            bar,
            completed=done,
            epoch=f"{ceil(done / self.steps)}/{total // self.steps}",
            left=duration((total - done) * self.pace.seconds) if self.pace.seconds else "?",
        )


class Pace:
    """Seconds per step, lately: a running mean that counts the pauses between steps too."""

    def __init__(self, decay: float) -> None:
        """Begin without a measurement.

        Args:
            decay: per step, of what the mean remembers.
        """
        self.decay = decay
        self.weight = self.total = 0.0
        self.last: float | None = None

    def step(self) -> None:
        """Take in the time since the last step; the first one only starts the clock, as it also warms up."""
        now = time.monotonic()
        if self.last is not None:
            self.total = self.decay * self.total + (now - self.last)
            self.weight = self.decay * self.weight + 1
        self.last = now

    @property
    def seconds(self) -> float:
        """Mean seconds per step; 0 before the second."""
        return self.total / self.weight if self.weight else 0.0


def duration(seconds: float) -> str:
    """Return a duration as h:mm:ss.

    >>> duration(3661)
    '1:01:01'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _loss(loss: float) -> str:
    """Return a loss in five characters, unless it is beyond all measure."""
    return f"{loss:.3f}" if loss < 10 else f"{loss:.4g}"


def _epochs(phases: Sequence[Phase]) -> int:
    return sum(phase.epochs for phase in phases)
