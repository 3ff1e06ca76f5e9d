"""Training batches of noise, and whether two epochs are the same."""

import torch
from torch import Tensor

from subfour.data.loader import Augmentation, TrainingLoader

from .builders import array_split, geometry

Batches = list[tuple[Tensor, Tensor]]


def loader(
    count: int = 40, *, augment: Augmentation = "crop-flip", batch_size: int = 16, seed: int = 0, workers: int = 0
) -> TrainingLoader:
    return TrainingLoader(array_split(count), geometry(8), batch_size=batch_size, augment=augment, seed=seed, workers=workers)


def same(first: Batches, second: Batches) -> bool:
    return len(first) == len(second) and all(
        torch.equal(images, others) and torch.equal(labels, other_labels)
        for (images, labels), (others, other_labels) in zip(first, second, strict=True)
    )
