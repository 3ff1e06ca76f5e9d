"""Batches for training and evaluation: normalised float32 images [N, 3, H, W] in channels_last order, int64 labels [N].

Order, crops and flips are functions of (seed, key), where the key names a place in a run, such as (phase, epoch): there is no
stream to replay on resume, and neither the number of decoding processes changes anything nor that of the workers who share a
batch.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.data.augment import Part, cutout, random_crop, random_flip, random_resized_crop
from subfour.data.decode import BatchDecoder, Decoded, EvaluationPixels, Place
from subfour.data.images import Split, Unreadable
from subfour.data.preprocess import Preprocessing, normalize
from subfour.seeding import derive_seed

Augmentation = Literal["crop-flip", "crop", "resized-crop", "none"]
"""`crop`: shifted by up to 1/8 of the size (digits must not be mirrored); `resized-crop`: ImageNet's, with flip."""


BatchShare = tuple[int, int]
"""Which part of every batch a worker takes: its rank, and how many workers there are."""

WHOLE: BatchShare = (0, 1)

LARGEST_COUNT = 2**31 - 1
"""Of images in a batch, batches, epochs, pixels: what torch and Python's own loops can count to everywhere."""


class TrainingLoader:
    """Shuffled, augmented batches of one size."""

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        augment: Augmentation,
        seed: int,
        cutout_side: int = 0,
        workers: int | None = None,
        max_steps: int | None = None,
        unreadable: Unreadable = "error",
    ) -> None:
        """Decode the images, unless the augmentation needs them whole or memory is short.

        Args:
            split: where images come from.
            preprocessing: size and normalisation.
            batch_size: images a step; a smaller split makes one batch of everything.
            augment: the kind of random views.
            seed: of the run.
            cutout_side: of the square that is blank in each view, pixels; 0: none.
            workers: processes that decode; 0 decodes in this one, None takes one per core, at most 8.
            max_steps: end every epoch after so many steps.
            unreadable: whether an image that cannot be read is an error, or is left out of its batch.

        Raises:
            ValueError: an option is out of range, or an image cannot be read.
        """
        _check_counts(batch_size, workers)
        if augment not in get_args(Augmentation):
            raise ValueError(f"augment: {augment!r} is not known; use one of {', '.join(get_args(Augmentation))}")
        if not 0 <= cutout_side <= preprocessing.image_size:
            raise ValueError(
                f"cutout: {cutout_side} is not possible with images of {preprocessing.image_size} pixels; use a side of at "
                "most so many, or 0 for none"
            )
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps: {max_steps} leaves nothing to train; use 1 or more, or leave it out")
        self.split, self.preprocessing = split, preprocessing
        self.augment, self.seed, self.cutout_side = augment, seed, cutout_side
        self._mean_color = (torch.tensor(preprocessing.mean) * 255).round()
        self.batch_size = min(batch_size, len(split))
        self.steps_per_epoch = len(split) // self.batch_size
        if max_steps is not None:
            self.steps_per_epoch = min(self.steps_per_epoch, max_steps)
        self._views: Callable[[Place, Sequence[Tensor]], Iterator[Decoded]]
        if augment == "resized-crop":
            decoder = BatchDecoder(partial(_resized_crop, split, preprocessing), workers, unreadable)
            self._views, self.errors = decoder.batches, decoder.errors
        else:
            pixels = EvaluationPixels(split, preprocessing, workers, unreadable)
            self._views, self.errors = lambda _, batches: pixels.batches(batches), pixels.errors

    def epoch(
        self, *key: int, first_step: int = 0, share: BatchShare = WHOLE, parts: int = 1, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of each step; the last partial batch is dropped.

        The shares of all workers are the batch of one: the same images, cropped and mirrored the same way.

        Args:
            *key: the epoch's place in the run, such as phase and epoch.
            first_step: where to begin; nothing is decoded for the steps before it.
            share: of each batch; shares differ by one image at most.
            parts: of a batch, of each of which every worker has a share, one after another: cut into as many, shares that belong
                together are a part again.
            size: side of the images, pixels, to which they are scaled down when all else is done; None leaves them as they are.

        Raises:
            ValueError: an image cannot be read.
        """
        order = torch.randperm(len(self.split), generator=_generator(self.seed, "order", *key))
        places = torch.cat([_shared(part, share) for part in torch.arange(self.batch_size).tensor_split(parts)])
        batches = [batch[places] for batch in torch.split(order, self.batch_size)[first_step : self.steps_per_epoch]]
        views = self._views((self.seed, "crops", *key), batches)
        for step, (indices, decoded) in enumerate(zip(batches, views, strict=True), start=first_step):
            if not len(decoded.kept):
                raise ValueError(f"image: none of the {len(indices)} images of a step can be read; repair the data")
            part = Part(self.batch_size, places[decoded.kept])
            augmented = self._augment(decoded.pixels, _generator(self.seed, "crops", *key, step), part)
            images = normalize(augmented, self.preprocessing)
            if size is not None and size != images.shape[-1]:
                images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
            yield images, self.split.labels[indices[decoded.kept]]

    def _augment(self, pixels: Tensor, generator: torch.Generator, part: Part) -> Tensor:
        if self.augment in ("crop", "crop-flip"):
            pixels = random_crop(pixels, self.preprocessing.image_size // 8, generator, part)
        if self.augment == "crop-flip":
            pixels = random_flip(pixels, generator, part)
        return cutout(pixels, self.cutout_side, self._mean_color, generator, part) if self.cutout_side else pixels


class EvaluationLoader:
    """Every image once, in order; or a worker's share of every batch."""

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        workers: int | None = None,
        unreadable: Unreadable = "error",
        share: BatchShare = WHOLE,
    ) -> None:
        """Decode the images, if they fit into memory; see `TrainingLoader`.

        Raises:
            ValueError: an option is out of range, or an image cannot be read.
        """
        _check_counts(batch_size, workers)
        self.split, self.preprocessing, self.batch_size, self.share = split, preprocessing, batch_size, share
        self._pixels = EvaluationPixels(split, preprocessing, workers, unreadable)
        self.errors = self._pixels.errors

    @property
    def images(self) -> int:
        """Number of images of all shares, unreadable ones included."""
        return len(self.split)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = [_shared(batch, self.share) for batch in torch.split(torch.arange(self.images), self.batch_size)]
        for indices, decoded in zip(batches, self._pixels.batches(batches), strict=True):
            if len(decoded.kept) or self.share != WHOLE:  # workers must all come to the same number of batches
                yield normalize(decoded.pixels, self.preprocessing), self.split.labels[indices[decoded.kept]]


def _check_counts(batch_size: int, workers: int | None) -> None:
    if not 1 <= batch_size <= LARGEST_COUNT:
        raise ValueError(f"batch_size: {batch_size} is not possible; use 1 to {LARGEST_COUNT}")
    if workers is not None and workers < 0:
        raise ValueError(f"workers: {workers} is not possible; use 0 (decode in this process) or more")


def _shared(batch: Tensor, share: BatchShare) -> Tensor:
    rank, workers = share
    return batch.tensor_split(workers)[rank]


def _generator(*place: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*place))


def _resized_crop(split: Split, preprocessing: Preprocessing, place: Place, index: int) -> NDArray[np.uint8]:
    return random_resized_crop(split.image(index), preprocessing, random.Random(derive_seed(*place, index)))
