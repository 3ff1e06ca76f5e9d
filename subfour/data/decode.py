"""Encoded images to uint8 batches: decoded once and kept where memory allows, else decoded each time they are needed."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from subfour.data.images import Split
from subfour.data.preprocess import Preprocessing, evaluation_pixels

MEMORY_BYTES = 2 * 1024**3
"""Largest split that is kept in memory, decoded: 700,000 images of 32x32 pixels, 14,000 of 224x224."""

Place = tuple[int | str, ...]
"""A place in a run, such as (seed, phase, epoch): random views are a function of it."""

Decode = Callable[[Place, int], NDArray[np.uint8]]
"""From a place and an image's index to its pixels [3, H, W]."""


class BatchDecoder:
    """Decodes batches of images, ahead of use, in worker processes that live as long as this does.

    Threads would be slower than one: for small images most of the work is Python's, under its lock. New workers for every
    epoch would be slower still: a fork copies the page tables of a training process.
    """

    def __init__(self, decode: Decode, workers: int) -> None:
        """Start nothing yet.

        Args:
            decode: makes one image's pixels; all images have one size.
            workers: processes; 0 decodes in this one.
        """
        self._requests: list[tuple[Place, list[int]]] = []
        self._loader = DataLoader(
            _Batches(decode),
            sampler=self._requests,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else it draws a seed for its workers from the global generator
        )

    def batches(self, place: Place, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield uint8 [N, 3, H, W] for each batch of indices, in order.

        Raises:
            ValueError: an image cannot be read.
        """
        self._requests[:] = [(place, indices.tolist()) for indices in batches]
        for batch in self._loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch


class EvaluationPixels:
    """The images of a split as evaluation sees them, by batches."""

    def __init__(self, split: Split, preprocessing: Preprocessing, workers: int) -> None:
        """Decode everything, if it fits into `MEMORY_BYTES`.

        Raises:
            ValueError: an image cannot be read.
        """
        self._decoder: BatchDecoder | None = BatchDecoder(partial(_decode, split, preprocessing), workers)
        self._pixels: Tensor | None = None
        shape = (len(split), 3, preprocessing.image_size, preprocessing.image_size)
        if math.prod(shape) <= MEMORY_BYTES:
            self._pixels = torch.empty(shape, dtype=torch.uint8)
            chunks = torch.split(torch.arange(len(split)), 500)
            for indices, pixels in zip(chunks, self._decoder.batches((), chunks), strict=True):
                self._pixels[indices] = pixels
            self._decoder = None  # its workers end here

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield uint8 [N, 3, H, W] for each batch of indices."""
        if self._decoder is not None:
            yield from self._decoder.batches((), batches)
        elif self._pixels is not None:
            for indices in batches:
                yield self._pixels.index_select(0, indices)  # eight times as fast as self._pixels[indices]


@dataclass(frozen=True)
class _Batches(Dataset[Tensor | ValueError]):
    decode: Decode

    def __getitem__(self, request: tuple[Place, list[int]]) -> Tensor | ValueError:
        place, indices = request
        try:
            return torch.from_numpy(np.stack([self.decode(place, index) for index in indices]))
        except ValueError as error:
            return error  # raised in a worker, it would arrive wrapped in a traceback


def _decode(split: Split, preprocessing: Preprocessing, place: Place, index: int) -> NDArray[np.uint8]:
    del place  # nothing is random here
    return evaluation_pixels(split.image(index), preprocessing)
