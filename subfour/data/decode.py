"""Encoded images to uint8 batches: decoded once and kept where memory allows, else decoded each time they are needed.

An image that cannot be read is an error, or is left out of its batch: the batch is smaller by one, and everything else stays
where it was, so that order and views remain functions of their place.
"""

import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from subfour.data.images import Split, Unreadable
from subfour.data.preprocess import Preprocessing, evaluation_pixels
from subfour.environment import usable_cores

logger = logging.getLogger(__name__)

MEMORY_BYTES = 2 * 1024**3
"""Largest split that is kept in memory, decoded: 700,000 images of 32x32 pixels, 14,000 of 224x224."""

START = "fork" if sys.platform == "linux" else None
"""How decoders start: started afresh, as Python does it on Linux from 3.14 on, each would get a copy of the data."""

MOST_PROCESSES = 8
"""That decode, unless more are asked for."""

CHUNK = 100
"""Images decoded in one go, where all are kept; so few are decoded in the process itself."""

Place = tuple[int | str, ...]
"""A place in a run, such as (seed, phase, epoch): random views are a function of it."""

Decode = Callable[[Place, int], NDArray[np.uint8]]
"""From a place and an image's index to its pixels [3, H, W]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """The images of a batch that could be read."""

    pixels: Tensor
    """uint8 [N, 3, H, W]."""
    kept: Tensor
    """Their positions in the batch that was asked for, [N]."""
    errors: dict[int, str] = field(default_factory=dict)
    """Index of each other image -> why it could not be read."""


def decoding_processes() -> int:
    """Return one for each core of this process, at most `MOST_PROCESSES`; torchrun's workers on a machine share its cores."""
    return min(max(usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1), MOST_PROCESSES)


class BatchDecoder:
    """Decodes batches of images, ahead of use, in worker processes that live as long as this does.

    Threads would be slower than one: for small images most of the work is Python's, under its lock. New workers for every
    epoch would be slower still: a fork copies the page tables of a training process.
    """

    def __init__(self, decode: Decode, workers: int | None, unreadable: Unreadable) -> None:
        """Start nothing yet.

        Args:
            decode: makes one image's pixels; all images have one size.
            workers: processes; 0 decodes in this one, None asks `decoding_processes`.
            unreadable: whether an image that cannot be read is an error.
        """
        workers = decoding_processes() if workers is None else workers
        self.errors: dict[int, str] = {}
        """Index of each image left out so far -> why."""
        self._requests: list[tuple[Place, list[int]]] = []
        self._loader = DataLoader(
            _Batches(decode, unreadable),
            sampler=self._requests,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_outlive_the_first_sigterm,
            multiprocessing_context=START if workers else None,
            generator=torch.Generator(),  # else it draws a seed for its workers from the global generator
        )

    def batches(self, place: Place, batches: Sequence[Tensor]) -> Iterator[Decoded]:
        """Yield the images of each batch of indices, in order.

        Raises:
            ValueError: an image cannot be read, and none may be left out.
        """
        self._requests[:] = [(place, indices.tolist()) for indices in batches]
        for batch in self._loader:
            if isinstance(batch, ValueError):
                raise batch
            for index, error in batch.errors.items():
                if index not in self.errors:
                    logger.warning("%s; left out", error)
            self.errors |= batch.errors
            yield batch


class EvaluationPixels:
    """The images of a split as evaluation sees them, by batches."""

    def __init__(self, split: Split, preprocessing: Preprocessing, workers: int | None, unreadable: Unreadable) -> None:
        """Decode everything, if it fits into `MEMORY_BYTES`.

        Raises:
            ValueError: see `BatchDecoder.batches`.
        """
        workers = workers if len(split) > CHUNK else 0
        self._decoder: BatchDecoder | None = BatchDecoder(
            partial(decode_for_evaluation, split, preprocessing), workers, unreadable
        )
        self.errors = self._decoder.errors
        self._pixels: Tensor | None = None
        shape = (len(split), 3, preprocessing.image_size, preprocessing.image_size)
        if math.prod(shape) <= MEMORY_BYTES:
            self._pixels = torch.empty(shape, dtype=torch.uint8)
            self._readable = torch.zeros(len(split), dtype=torch.bool)
            chunks = torch.split(torch.arange(len(split)), CHUNK)
            for indices, decoded in zip(chunks, self._decoder.batches((), chunks), strict=True):
                self._pixels[indices[decoded.kept]] = decoded.pixels
                self._readable[indices[decoded.kept]] = True
            self._decoder = None  # its workers end here

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Decoded]:
        """Yield the images of each batch of indices."""
        if self._decoder is not None:
            yield from self._decoder.batches((), batches)
        elif self._pixels is not None:
            for indices in batches:
                kept = self._readable[indices].nonzero().flatten()
                # index_select: eight times as fast as self._pixels[indices].
                yield Decoded(pixels=self._pixels.index_select(0, indices[kept]), kept=kept)


def _outlive_the_first_sigterm(worker: int) -> None:
    """Let SIGTERM for a whole process group (a scheduler's, torchrun's) pass: the trainer still needs images for its last step.

    Else torch would raise wherever the trainer stands, as soon as a decoder has died. A second one, which is how
    the trainer ends them, ends a decoder without a complaint.
    """
    del worker
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, lambda *_: os._exit(0)))


@dataclass(frozen=True)
class _Batches(Dataset[Decoded | ValueError]):
    decode: Decode
    unreadable: Unreadable

    def __getitem__(self, request: tuple[Place, list[int]]) -> Decoded | ValueError:
        place, indices = request
        pixels: list[NDArray[np.uint8]] = []
        kept: list[int] = []
        errors: dict[int, str] = {}
        for position, index in enumerate(indices):
            try:
                pixels.append(self.decode(place, index))
                kept.append(position)
            except ValueError as error:
                errors[index] = str(error)
                if self.unreadable == "error":
                    return error  # raised in a worker, it would arrive wrapped in a traceback
        stacked = torch.from_numpy(np.stack(pixels)) if pixels else torch.empty((0, 3, 1, 1), dtype=torch.uint8)
        return Decoded(pixels=stacked, kept=torch.tensor(kept, dtype=torch.long), errors=errors)


def decode_for_evaluation(split: Split, preprocessing: Preprocessing, place: Place, index: int) -> NDArray[np.uint8]:
    """Return the pixels of an image as evaluation sees them.

    Raises:
        ValueError: it cannot be read, or not be resized; its place is named.
    """
    del place  # nothing is random here
    image = split.image(index)
    try:
        return evaluation_pixels(image, preprocessing)
    except ValueError as error:
        raise ValueError(f"image: {split.where(index)}: {error}") from None
