"""What people see while a run trains: one progress display in a terminal, one line per epoch elsewhere, TensorBoard."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from subfour.profit.method import Observer
from subfour.profit.phases import Phase

RECENT = 0.98
"""Decay of the mean time per step that the time left is estimated from."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Keep them in order."""
        self.observers = observers

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.phase_begins(index, phase, frozen, next_epoch)

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.step_done(step, loss, top1)

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.epoch_done(record)


class ProgressDisplay:
    """Two bars, the phase and the run, each with the time left; the lines above them are the finished epochs."""

    def __init__(self, console: Console, phases: Sequence[Phase], steps_per_epoch: int) -> None:
        """Lay out the display.

        Args:
            console: where it is drawn.
            phases: of the run.
            steps_per_epoch: training steps.
        """
        self.console, self.phases, self.steps = console, phases, steps_per_epoch
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        total = sum(phase.epochs for phase in phases) * steps_per_epoch
        self.run_task: TaskID = self.progress.add_task("run", total=total, left="?", numbers="")
        self.phase_task: TaskID = self.progress.add_task("phase", total=None, left="?", numbers="")
        self.seconds_per_step = 0.0
        self.last_time = time.monotonic()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Show which phase this is."""
        title = f"phase {index + 1} of {len(self.phases)}: {phase.kind} {phase.widths}, {len(frozen)} layers frozen"
        self.progress.console.print(title, style="bold")
        earlier = sum(phase.epochs for phase in self.phases[:index])
        self.progress.update(self.run_task, completed=(earlier + next_epoch) * self.steps)
        self.progress.update(
            self.phase_task,
            description=f"phase {index + 1}/{len(self.phases)}",
            total=phase.epochs * self.steps,
            completed=next_epoch * self.steps,
        )
        self.last_time = time.monotonic()

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """Advance both bars."""
        now = time.monotonic()
        elapsed, self.last_time = now - self.last_time, now
        self.seconds_per_step = RECENT * self.seconds_per_step + (1 - RECENT) * elapsed if self.seconds_per_step else elapsed
        for task, numbers in ((self.run_task, ""), (self.phase_task, f"loss {loss:.3f}  top-1 {top1:.1f} %")):
            self.progress.update(task, advance=1, numbers=numbers)
            remaining = self.progress.tasks[task].remaining or 0
            self.progress.update(task, left=_duration(remaining * self.seconds_per_step))

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Print one line."""
        self.progress.console.print(
            f"  {record['kind']:<9} A{record['activation_bits']}W{record['weight_bits']}  "
            f"epoch {record['epoch'] + 1}/{record['epochs']}  loss {record['train_loss']:.3f}  "
            f"validation {record['raw']['loss']:.3f}, top-1 {record['raw']['top1']:.2f} %, "
            f"averaged {record['averaged']['top1']:.2f} %  [{_duration(record['seconds'])}]",
            highlight=False,
        )


class TensorBoard:
    """The numbers of metrics.jsonl as TensorBoard scalars, one step per epoch of the run."""

    def __init__(self, folder: Path) -> None:
        """Open the folder.

        Raises:
            ValueError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an optional extra)
        except ImportError:
            raise ValueError("tensorboard: it is not installed; install it with: pip install 'subfour[tensorboard]'") from None
        self.writer = SummaryWriter(folder)
        self.epochs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.close()

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Nothing to draw."""

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """Nothing to draw: the scalars are per epoch."""

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Write the record's scalars."""
        self.epochs += 1
        scalars = {"train/loss": record["train_loss"], "train/top1": record["train_top1"], "lr": record["lr"]}
        for weights in ("raw", "averaged"):
            scalars |= {f"validation/{weights}/{name}": record[weights][name] for name in ("loss", "top1", "top5")}
        scalars |= {name: record[name] for name in ("weight_bits", "activation_bits", "frozen_layers")}
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, self.epochs)


def _duration(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
