"""Accuracy and loss over a set of images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour import collective
from subfour.modes import evaluation_mode


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Result of an evaluation."""

    top1: float
    """Percent of images whose class is the first answer."""
    top5: float
    """Percent of images whose class is among the first five answers (or all, with fewer classes)."""
    loss: float
    """Mean cross entropy with the labels."""
    images: int
    """Number of images."""


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | None = None) -> Accuracy:
    """Return accuracy in percent and mean loss, with the model in evaluation mode (modes are restored).

    Args:
        model: images [N, 3, H, W] -> logits [N, classes].
        batches: pairs of images and labels [N]; with several workers, this one's share, which may be empty.
        device: where the model lies; None: CPU.

    Raises:
        ValueError: there is no image.
    """
    images_seen = first = five = 0
    loss = 0.0
    with evaluation_mode(model):
        for images, labels in batches:
            if not len(labels):
                continue
            logits = model(images.to(device))
            labels_there = labels.to(device)
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
            hits = ranked == labels_there[:, None]
            first += int(hits[:, 0].sum())
            five += int(hits.any(dim=1).sum())
            loss += F.cross_entropy(logits.double(), labels_there, reduction="sum").item()
            images_seen += len(labels)
    of_first, of_five, of_loss, total = collective.totals(first, five, loss, images_seen)
    if not total:
        raise ValueError("batches: there is no image to evaluate on")
    return Accuracy(top1=100 * of_first / total, top5=100 * of_five / total, loss=of_loss / total, images=int(total))
