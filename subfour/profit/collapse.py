"""The collapse guard: a training that can lead nowhere any more stops, and keeps its last good checkpoint.

    not finite      the loss of a step, a parameter, the validation loss
    range           a quantizer whose every step is 0, below 0 or not finite
    chance          training and validation accuracy of an epoch are chance, though they had been well above it

A narrower width may legitimately cost nearly everything for an epoch: on digits the first epoch at 8-bit activations takes
the averaged weights from 99 to 31 %, while the training accuracy of that epoch stays at 88 to 93 %. So "had been" means at the
same widths, and both the accuracy of the whole epoch in training mode and that of the raw weights must be at chance; the
averaged weights, which follow late, are not asked. A network that a new width ruined for good never was above chance at
it: a phase that trains weights must not end at chance where an earlier width was well above.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from subfour.quantizers import Quantizer

WELL_ABOVE = 0.25
"""Share of the way from chance to 100 % from which on a network has learned: 32.5 % of 10 classes, 25 % of 1,000. Below it,
early epochs go up and down by themselves: digits fall back from 16 % to 10 % in the float phase."""

DEVIATIONS = 4.0
"""How many standard deviations of a guess among as many images it has learned by, too: 20 images of two classes give 75 % by
chance within 40 epochs, and have learned from 94.7 % on. Where all images are of one class, nothing is ever learned."""

AT_CHANCE = 0.02
"""Share of the way from chance to 100 % up to which a network knows nothing: 11.8 % of 10 classes. One that gives one answer for
all images has exactly the share of that class; on 355 validation images chance deviates by 1.6 points."""

SMALLEST_STEP = 1e-22
"""A step at or below it is 0: no weight or activation that takes part in anything is so small, and its square, by which gradients
are divided, underflows in float32."""


class CollapseError(FloatingPointError):
    """The training can lead nowhere; the message says why, and what to change.

    What is raised as its base class says why, and `ProfitRun` adds what to change.
    """


def check_parameters(model: nn.Module, epoch: int) -> None:
    """Raise unless every parameter that trains is finite.

    Args:
        model: after an epoch.
        epoch: its number, for the message.

    Raises:
        FloatingPointError: one is not; names it.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(parameter.isfinite().all()):
            raise FloatingPointError(f"{name} is not finite after epoch {epoch + 1}")


def check_ranges(model: nn.Module, *, rate: str) -> None:
    """Raise unless every quantizer that quantizes has a range.

    Args:
        model: after an epoch.
        rate: the option that sets the learning rate, for the message.

    Raises:
        CollapseError: one has none left; names it.
    """
    for name, quantizer in _quantizing(model).items():
        if not quantizer.has_ranges():
            raise CollapseError(f"the range of {name} is not finite; try a lower schedule.range-lr-scale or {rate}")
    check_steps(model, rate=rate)


def check_steps(model: nn.Module, *, rate: str) -> None:
    """Raise unless every finite range has a step above zero.

    Args:
        model: as `check_ranges` takes it.
        rate: likewise.

    Raises:
        CollapseError: one is at zero; names it.
    """
    for name, quantizer in _quantizing(model).items():
        # UNIQ has no step, and stops the training by itself where weights are all the same.
        if not quantizer.uniform or not quantizer.has_ranges():
            continue
        params = quantizer.params()
        for step in (params.pre_scale, params.scale):
            # Of one channel it may be 0, as its weights may be; of a whole layer, nothing comes through any more.
            if not bool((torch.as_tensor(step) > SMALLEST_STEP).any()):
                raise CollapseError(f"the range of {name} is at zero; try a lower schedule.range-lr-scale or {rate}")


def explained(error: FloatingPointError, model: nn.Module, *, rate: str) -> CollapseError:
    """Return what a number that is not finite means, a range at zero beside it, by which the engines divide each in its way.

    Args:
        error: that was raised.
        model: as it is now.
        rate: as `check_ranges` takes it.
    """
    try:
        check_steps(model, rate=rate)
    except CollapseError as collapse:
        return CollapseError(f"{error}; {collapse}")
    return CollapseError(f"{error}; try a lower {rate}")


def _quantizing(model: nn.Module) -> dict[str, Quantizer]:
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, Quantizer) and module.enabled}


def chance_top1(labels: Tensor, classes: int) -> float:
    """Return what guessing reaches, in percent: always the commonest class of the validation images.

    Args:
        labels: of these, [N].
        classes: how many there are.
    """
    return 100 * max(float(labels.bincount().max()) / len(labels), 1 / classes)


class ChanceGuard:
    """Knows how good the network has been, from the records of its epochs."""

    def __init__(self, labels: Tensor, classes: int, *, trained: int, start: float = 0.0) -> None:
        """Begin a run.

        Args:
            labels: of the validation images, [N].
            classes: how many there are.
            trained: images of a training epoch.
            start: top-1 of the network that the run began with, if it had learned before, in percent.
        """
        self.start = start
        self.chance = chance_top1(labels, classes)
        share = self.chance / 100
        deviation = 100 * sqrt(share * (1 - share) / min(len(labels), trained))
        self.learned = max(self._above_chance(WELL_ABOVE), self.chance + DEVIATIONS * deviation)
        """Top-1 above which a network is no guess."""
        self.best: dict[tuple[int, int], float] = {}
        """Widths -> the best accuracy of an epoch so far: of training or validation, whichever is the lower."""

    def remember(self, record: Mapping[str, Any]) -> None:
        """Take in the record of an epoch, as metrics.jsonl has it."""
        widths = (record["activation_bits"], record["weight_bits"])
        self.best[widths] = max(self.best.get(widths, 0.0), min(record["train_top1"], record["raw"]["top1"]))

    def check(self, record: Mapping[str, Any], *, rate: str) -> None:
        """Raise if the network of an epoch knows nothing any more.

        Args:
            record: of the epoch, as metrics.jsonl has it.
            rate: the option that sets the learning rate, for the message.

        Raises:
            CollapseError: so it is.
        """
        now = max(record["train_top1"], record["raw"]["top1"])
        reached = self.best.get((record["activation_bits"], record["weight_bits"]), 0.0)
        trains_weights = record["kind"] in ("sample", "finetune")
        if trains_weights and record["epoch"] + 1 == record["epochs"]:
            reached = max([self.start, *self.best.values()])
        if now <= self._above_chance(AT_CHANCE) and reached > self.learned:
            raise CollapseError(
                f"accuracy fell from {reached:.1f} % to chance, {now:.1f} %, in epoch {record['epoch'] + 1}; "
                f"start again with a lower {rate} or one more width in between, or go on with --ignore-collapse"
            )

    def _above_chance(self, share: float) -> float:
        return self.chance + share * (100 - self.chance)
