"""Normalisation from the data itself, for networks whose weights bring none."""

from dataclasses import replace

import numpy as np

from subfour.data.decode import decode_for_evaluation
from subfour.data.images import Split, Unreadable
from subfour.data.preprocess import Preprocessing

SAMPLES = 10_000
"""Images looked at, at most; evenly spaced."""

SMALLEST_STD = 0.0039
"""One grey level, 1/255: below it there is nothing to normalise."""


def channel_statistics(
    split: Split, preprocessing: Preprocessing, unreadable: Unreadable = "error"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the red, green and blue pixels in 0..1, to 4 decimals.

    Args:
        split: the training images.
        preprocessing: its geometry is used, its normalisation is not.
        unreadable: whether an image that cannot be read is an error.

    Raises:
        ValueError: an image cannot be read, or none can.
    """
    histogram = np.zeros((3, 256), np.int64)  # counts are exact, so no order of summation shows in the result
    count = min(len(split), SAMPLES)
    for sample in range(count):
        try:
            pixels = decode_for_evaluation(split, preprocessing, (), sample * len(split) // count)
        except ValueError:
            if unreadable == "error":
                raise
            continue  # the loader names it
        histogram += np.stack([np.bincount(channel.ravel(), minlength=256) for channel in pixels])
    if not histogram.any():
        raise ValueError(f"image: none of {count} images can be read, {split.where(0)} and others; repair the data")
    share = histogram / histogram.sum(axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.round(4).tolist()), tuple(std.round(4).clip(SMALLEST_STD).tolist())


def data_preprocessing(split: Split, *, image_size: int, unreadable: Unreadable = "error") -> Preprocessing:
    """Return the preprocessing for a split: nothing but a longer side is cropped, normalised by the split's own statistics.

    Args:
        split: the training images.
        image_size: pixels of the network's input.
        unreadable: whether an image that cannot be read is an error.
    """
    geometry = Preprocessing(
        image_size=image_size,
        resize_size=image_size,
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    mean, std = channel_statistics(split, geometry, unreadable)
    return replace(geometry, mean=mean, std=std)
