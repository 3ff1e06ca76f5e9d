"""What every source of images gives: class names and splits of labelled images, opened one at a time."""

import errno
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from subfour.data.opening import pixels_limited
from subfour.data.preprocess import to_rgb

logger = logging.getLogger(__name__)

NOT_OF_THE_FILE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}
"""Errors of a machine in need: the image itself may be sound, and must not be left out because of them."""

Unreadable = Literal["error", "skip"]
"""What an image that cannot be read does: it ends everything, or is left out and named."""

TRAINING = "train"

HELD_OUT = ("validation", "val", "valid", "test")
"""Splits to evaluate on, the first that is there."""


class Split(ABC):
    """Labelled images in a fixed order."""

    labels: Tensor
    """int64 [N]; -1 where the source knows none."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """Return the image as stored: any mode, perhaps not decoded yet."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Return where the image is found, for messages."""

    def digest(self) -> str:
        """Return a digest of the labels, and of the images' names where they have any; no image is read."""
        return hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()

    def image(self, index: int) -> Image.Image:
        """Return the decoded image in RGB; see `to_rgb`.

        Raises:
            ValueError: the image cannot be read, or has more pixels than Pillow thinks safe; its place is named.
        """
        try:
            with pixels_limited(), self.open(index) as image:
                image.load()
                return to_rgb(image)
        except Exception as error:  # Pillow's decoders raise nearly every kind on a corrupt file
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in NOT_OF_THE_FILE):
                raise
            reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(
                f"image: cannot read {self.where(index)} ({reason}); repair or replace it; training can leave it out with "
                "--loading.unreadable skip"
            ) from error


class Subset(Split):
    """Some images of a split, in the order given."""

    def __init__(self, split: Split, indices: Sequence[int]) -> None:
        """Choose images.

        Args:
            split: where they are.
            indices: their places in it.
        """
        self.split, self.indices = split, indices
        self.labels = split.labels[list(indices)]

    def open(self, index: int) -> Image.Image:
        """Return the image as stored."""
        return self.split.open(self.indices[index])

    def where(self, index: int) -> str:
        """Return where the image is found."""
        return self.split.where(self.indices[index])


class Relabelled(Split):
    """The same images under other labels."""

    def __init__(self, split: Split, labels: Tensor) -> None:
        """Take images, and a label for each."""
        self.split, self.labels = split, labels

    def open(self, index: int) -> Image.Image:
        """Return the image as stored."""
        return self.split.open(index)

    def where(self, index: int) -> str:
        """Return where the image is found."""
        return self.split.where(index)

    def digest(self) -> str:
        """Return a digest of these labels and of what the images' own split says."""
        return hashlib.sha256(self.labels.numpy().tobytes() + self.split.digest().encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData:
    """A data set."""

    classes: tuple[str, ...]
    """Names, by label."""
    splits: Mapping[str, Split]
    """By name, as the source calls them."""


def training_splits(data: ImageData) -> tuple[Split, Split]:
    """Return the split to train on and the one to evaluate on meanwhile: "train", and the first of `HELD_OUT`.

    Raises:
        ValueError: one of them is missing or empty, a label is not a class, or there is nothing to tell apart.
    """
    if len(data.classes) < 2:
        raise ValueError(f"classes: the data has only {', '.join(data.classes) or 'none'}; training needs two or more")
    return _split(data, TRAINING), _split(data, _held_out(data))


def evaluation_split(data: ImageData, name: str | None = None) -> Split:
    """Return the split to evaluate on.

    Args:
        data: where to look.
        name: None takes the only split, or the first of `HELD_OUT`.

    Raises:
        ValueError: it is missing or empty, or a label is not a class.
    """
    if name is None:
        name = next(iter(data.splits)) if len(data.splits) == 1 else _held_out(data)
    return _split(data, name)


def _held_out(data: ImageData) -> str:
    for name in HELD_OUT:
        if name in data.splits:
            return name
    raise ValueError(f"split: the data has {', '.join(data.splits)}, but none of {', '.join(HELD_OUT)}; add one to evaluate on")


def _split(data: ImageData, name: str) -> Split:
    if name not in data.splits:
        raise ValueError(f"split: the data has no {name!r}, only {', '.join(data.splits)}; name one of these or add it")
    split = data.splits[name]
    if not len(split):
        raise ValueError(f"split: {name!r} holds no images; add some or name another of {', '.join(data.splits)}")
    wrong = (split.labels < 0) | (split.labels >= len(data.classes))
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise ValueError(
            f"label: {split.where(index)} has {int(split.labels[index])}, but the {len(data.classes)} classes are "
            f"0..{len(data.classes) - 1}; correct the label or use a labelled split"
        )
    return split


def as_the_model_labels(split: Split, classes: tuple[str, ...], known: tuple[str, ...], source: str) -> Split:
    """Return a split with the model's label of each class name; by place, where one of the two only numbers its classes.

    Args:
        split: of the data.
        classes: the data's.
        known: the model's.
        source: where the data are from, for messages.

    Raises:
        ValueError: the data have a class that the model does not know, or more classes than it.
    """
    if classes == known:
        return split
    if set(classes) <= set(known):
        return Relabelled(split, torch.tensor([known.index(name) for name in classes])[split.labels])
    if not any(names == tuple(map(str, range(len(names)))) for names in (classes, known)):
        strange = next(name for name in classes if name not in known)
        raise ValueError(f"data: {source} has a class {strange!r}, which the model does not know; give data of its classes")
    if len(classes) > len(known):
        raise ValueError(f"data: {source} has {len(classes)} classes, the model knows {len(known)}; give data of its classes")
    different = next((ours, theirs) for ours, theirs in zip(known, classes, strict=False) if ours != theirs)
    logger.warning("data: class names differ, first %r in the model and %r in the data; are they in the same order?", *different)
    return split
