"""Teacher-student training: cross entropy with the labels plus cross entropy with the teacher's softmax.

    loss = CE(logits, labels) + weight * T^2 * CE(softmax(teacher_logits / T), softmax(logits / T))

Source: the authors' train_ts.py (weight 1, temperature 1). The teacher stays in evaluation mode; theirs runs in training
mode, so its batch-norm statistics move: `mode="train"` does as they do.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.train.whole_batch import WholeBatch


class Teacher:
    """A network that is asked and never trained. Its input is normalised anew if it was trained with other constants."""

    def __init__(
        self,
        network: nn.Module,
        *,
        mode: Literal["eval", "train"] = "eval",
        renormalize: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Take the network over.

        Args:
            network: images [N, 3, H, W] -> logits [N, classes].
            mode: mode of its batch norm.
            renormalize: from the student's normalisation to the teacher's; None: they are the same.
        """
        network.requires_grad_(False).train(mode == "train")
        self.network = WholeBatch(network) if mode == "train" else network
        self.renormalize = renormalize

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [N, classes]."""
        logits: Tensor = self.network(self.renormalize(images) if self.renormalize else images)
        return logits


def renormalization(
    mean: Sequence[float], std: Sequence[float], teacher_mean: Sequence[float], teacher_std: Sequence[float]
) -> Callable[[Tensor], Tensor] | None:
    """Return the map from one normalisation to another, or None where they are equal."""
    if tuple(mean) == tuple(teacher_mean) and tuple(std) == tuple(teacher_std):
        return None
    old_mean, old_std = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
    new_mean, new_std = torch.tensor(teacher_mean).view(1, -1, 1, 1), torch.tensor(teacher_std).view(1, -1, 1, 1)
    scale, shift = old_std / new_std, (old_mean - new_mean) / new_std
    return lambda images: images * scale.to(images.device) + shift.to(images.device)


def distillation_loss(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor | None, *, weight: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """Return the scalar loss; without a teacher, the cross entropy with the labels.

    Args:
        logits: [N, classes].
        labels: [N], class numbers.
        teacher_logits: [N, classes], or None.
        weight: of the teacher's term.
        temperature: of both softmaxes.
    """
    loss = F.cross_entropy(logits, labels)
    if teacher_logits is None or weight == 0:
        return loss
    targets = F.softmax(teacher_logits / temperature, dim=1)
    return loss + weight * temperature**2 * F.cross_entropy(logits / temperature, targets)
