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

Decode = Callable[[int], NDArray[np.uint8]]
"""From an image's index to its pixels [3, H, W]."""


class EvaluationPixels:
    """The images of a split as evaluation sees them, by batches."""

    def __init__(self, split: Split, preprocessing: Preprocessing, workers: int) -> None:
        """Decode everything, if it fits into `MEMORY_BYTES`.

        Raises:
            ValueError: an image cannot be read.
        """
        self._decode = partial(_decode, split, preprocessing)
        self._workers = workers
        self._pixels: Tensor | None = None
        shape = (len(split), 3, preprocessing.image_size, preprocessing.image_size)
        if math.prod(shape) <= MEMORY_BYTES:
            self._pixels = torch.empty(shape, dtype=torch.uint8)
            chunks = torch.split(torch.arange(len(split)), 500)
            for indices, pixels in zip(chunks, decode_batches(self._decode, chunks, workers), strict=True):
                self._pixels[indices] = pixels

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield uint8 [N, 3, H, W] for each batch of indices."""
        if self._pixels is None:
            yield from decode_batches(self._decode, batches, self._workers)
        else:
            for indices in batches:
                yield self._pixels.index_select(0, indices)  # eight times as fast as self._pixels[indices]


def decode_batches(decode: Decode, batches: Sequence[Tensor], workers: int) -> Iterator[Tensor]:
    """Yield uint8 [N, 3, H, W] for each batch of indices, in order, decoded ahead by worker processes (0: by this one).

    Threads would be slower than one: for small images most of the work is Python's, under its lock.

    Raises:
        ValueError: an image cannot be read.
    """
    loader = DataLoader(
        _Batches(decode),
        sampler=[indices.tolist() for indices in batches],
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator(),  # else it draws a seed for its workers from the global generator
    )
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch


@dataclass(frozen=True)
class _Batches(Dataset[Tensor | ValueError]):
    decode: Decode

    def __getitem__(self, indices: list[int]) -> Tensor | ValueError:
        try:
            return torch.from_numpy(np.stack([self.decode(index) for index in indices]))
        except ValueError as error:
            return error  # raised in a worker, it would arrive wrapped in a traceback


def _decode(split: Split, preprocessing: Preprocessing, index: int) -> NDArray[np.uint8]:
    return evaluation_pixels(split.image(index), preprocessing)
