"""One epoch of training."""

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from subfour import collective
from subfour.train.average import WeightAverage
from subfour.train.distill import Teacher
from subfour.train.parallel import gradients_stay
from subfour.train.precision import Precision
from subfour.train.schedule import RateSchedule

LossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(logits, labels, teacher's logits or None) -> scalar loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainer:
    """What stays the same over one phase."""

    model: nn.Module
    """With several workers, wrapped by `distributed`."""
    optimizer: Optimizer
    """Each parameter group has its `base_lr`."""
    loss: LossFunction
    teacher: Teacher | None
    average: WeightAverage
    rate: RateSchedule
    rate_per_step: bool
    """Whether the learning rate changes every step, or once per epoch."""
    device: torch.device
    precision: Precision
    """Of the forward and the backward pass."""
    after_update: Callable[[], None] | None = None
    """Called when the optimizer has moved the weights, before the average follows."""
    micro_batches: int = 1
    """Parts of a batch that follow one another, where all of it is too large for memory; their gradients add up."""


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
        ValueError: a step has fewer images than micro-batches.
    """
    totals = totals or EpochTotals()
    last_step = max(totals.steps - 1, 0)
    _set_rate(trainer.optimizer, trainer.rate(epoch + last_step / steps if trainer.rate_per_step else epoch))
    for step, (images, labels) in enumerate(batches, start=totals.steps):
        if trainer.rate_per_step:
            _set_rate(trainer.optimizer, trainer.rate(epoch + step / steps))
        seed_step(step)
        loss, hits, count = _train_step(trainer, images, labels)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in epoch {epoch + 1}, step {step + 1}")
        totals.loss += loss * count
        totals.hits += hits
        totals.images += count
        totals.steps = step + 1
        on_step(step, loss, totals.result().top1)
    return totals.result()


def _train_step(trainer: Trainer, images: Tensor, labels: Tensor) -> tuple[float, int, int]:
    """Move the weights once; return mean loss, right answers and images of the whole batch, over all workers.

    Args:
        trainer: model, optimizer and loss.
        images: this worker's share of the batch.
        labels: the same.
    """
    model, device = trainer.model, trainer.device
    precision = trainer.precision
    if len(labels) < trainer.micro_batches:
        raise ValueError(
            f"accumulate: {trainer.micro_batches} parts cannot be made of the {len(labels)} images of a step that can be read; "
            "use fewer, or repair the data"
        )
    count = int(collective.totals(len(labels))[0])
    trainer.optimizer.zero_grad(set_to_none=True)
    loss_sum, hits, parts = 0.0, 0, trainer.micro_batches
    for part, (some, of_some) in enumerate(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True), start=1):
        images_there, labels_there = some.to(device), of_some.to(device)
        teacher_logits = precision.run(trainer.teacher, images_there) if trainer.teacher else None
        with nullcontext() if part == parts else gradients_stay(model):
            logits = precision.run(model, images_there)
            loss = trainer.loss(logits, labels_there, teacher_logits)
            # Gradients are averaged over the workers; the mean loss over the batch weighs each by its images.
            precision.backward(loss * (len(of_some) * collective.count() / count))
        loss_sum += loss.item() * len(of_some)
        hits += int((logits.detach().argmax(dim=1) == labels_there).sum())
    precision.step(trainer.optimizer)
    if trainer.after_update is not None:
        trainer.after_update()
    trainer.average.update()
    loss_sum, hits_there = collective.totals(loss_sum, hits)
    return loss_sum / count, int(hits_there), count


def _set_rate(optimizer: Optimizer, scale: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
