"""The numbers of metrics.jsonl for TensorBoard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from subfour.profit.observer import Observer
from subfour.profit.phases import Phase


class TensorBoard(Observer):
    """An observer that writes scalars, one step per epoch of the run."""

    def __init__(self, folder: Path, phases: Sequence[Phase]) -> None:
        """Open the folder.

        Args:
            folder: where the event files go.
            phases: of the run.
        """
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an optional extra)

        self.writer = SummaryWriter(folder)
        self.phases = phases

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.close()

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Write the record's scalars; the epochs of a resumed run go on counting where they were."""
        epoch = sum(phase.epochs for phase in self.phases[: record["phase"]]) + record["epoch"] + 1
        scalars = {"train/loss": record["train_loss"], "train/top1": record["train_top1"], "lr": record["lr"]}
        for weights in ("raw", "averaged"):
            scalars |= {f"validation/{weights}/{name}": record[weights][name] for name in ("loss", "top1", "top5")}
        scalars |= {name: record[name] for name in ("weight_bits", "activation_bits", "frozen_layers")}
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch)
