"""One epoch of training."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from subfour.train.average import WeightAverage
from subfour.train.distill import Teacher
from subfour.train.schedule import RateSchedule

LossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(logits, labels, teacher's logits or None) -> scalar loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainer:
    """What stays the same over one phase."""

    model: nn.Module
    optimizer: Optimizer
    """Each parameter group has its `base_lr`."""
    loss: LossFunction
    teacher: Teacher | None
    average: WeightAverage
    rate: RateSchedule
    rate_per_step: bool
    """Whether the learning rate changes every step, or once per epoch."""
    device: torch.device
    after_update: Callable[[], None] | None = None
    """Called when the optimizer has moved the weights, before the average follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochResult:
    """Means over the images of one epoch, as seen in training mode."""

    loss: float
    top1: float
    """Percent."""


@dataclass(kw_only=True, slots=True)
class EpochTotals:
    """What an epoch has summed up so far: with it, and batches from the next step on, an epoch goes on."""

    steps: int = 0
    loss: float = 0.0
    """Sum over the images."""
    hits: int = 0
    images: int = 0

    def result(self) -> EpochResult:
        """Return the means over the images."""
        return EpochResult(loss=self.loss / self.images, top1=100 * self.hits / self.images)


def train_epoch(
    trainer: Trainer,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    epoch: int,
    steps: int,
    seed_step: Callable[[int], None],
    on_step: Callable[[int, float, float], None],
    totals: EpochTotals | None = None,
) -> EpochResult:
    """Train for one epoch, or for what is left of it.

    Args:
        trainer: model, optimizer, loss and schedule.
        batches: images [N, 3, H, W] and labels [N], from the first step that is not done.
        epoch: number of epochs of this phase that are already done.
        steps: number of batches of a whole epoch, for a rate that changes every step.
        seed_step: called with the step's number before each step: sets the random state that dropout uses.
        on_step: called after each step with its number, loss and the epoch's running top-1 in percent.
        totals: of the steps already done, moved on in place with every step; None: the epoch begins.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    model, device = trainer.model, trainer.device
    totals = totals or EpochTotals()
    last_step = max(totals.steps - 1, 0)
    _set_rate(trainer.optimizer, trainer.rate(epoch + last_step / steps if trainer.rate_per_step else epoch))
    for step, (images, labels) in enumerate(batches, start=totals.steps):
        if trainer.rate_per_step:
            _set_rate(trainer.optimizer, trainer.rate(epoch + step / steps))
        seed_step(step)
        images_there, labels_there = images.to(device), labels.to(device)
        teacher_logits = trainer.teacher(images_there) if trainer.teacher else None
        logits = model(images_there)
        loss = trainer.loss(logits, labels_there, teacher_logits)
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        trainer.optimizer.step()
        if trainer.after_update is not None:
            trainer.after_update()
        trainer.average.update()
        value = loss.item()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {value} in epoch {epoch + 1}, step {step + 1}; try a lower schedule.lr")
        totals.loss += value * len(labels)
        totals.hits += int((logits.detach().argmax(dim=1) == labels_there).sum())
        totals.images += len(labels)
        totals.steps = step + 1
        on_step(step, value, totals.result().top1)
    return totals.result()


def _set_rate(optimizer: Optimizer, scale: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
