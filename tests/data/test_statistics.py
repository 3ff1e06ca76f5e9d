import numpy as np
import pytest
import torch

from subfour.data import statistics
from subfour.data.sources import load_images
from subfour.data.statistics import channel_statistics, data_preprocessing

from .builders import ArraySplit, geometry, noise


def test_statistics_are_those_of_numpy():
    """Per channel, of pixels in 0..1, to 4 decimals."""
    split = ArraySplit(noise(9, 8, 8, 3) // np.array([1, 2, 3], np.uint8), torch.zeros(9, dtype=torch.int64))
    mean, std = channel_statistics(split, geometry(8))
    assert mean == tuple((split.pixels / 255).mean((0, 1, 2)).round(4))
    assert std == tuple((split.pixels / 255).std((0, 1, 2)).round(4))


def test_equal_pixels_still_have_a_positive_deviation():
    """Normalisation divides by it."""
    split = ArraySplit(np.full((3, 8, 8, 3), 51, np.uint8), torch.zeros(3, dtype=torch.int64))
    assert channel_statistics(split, geometry(8)) == ((0.2, 0.2, 0.2), (0.0039, 0.0039, 0.0039))


def test_a_large_split_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch):
    """Folders are sorted by class: the first images would not do."""
    pixels = np.zeros((10, 4, 4, 3), np.uint8)
    pixels[5:] = 255
    monkeypatch.setattr(statistics, "SAMPLES", 4)
    mean, _ = channel_statistics(ArraySplit(pixels, torch.zeros(10, dtype=torch.int64)), geometry(4))
    assert mean == (0.5, 0.5, 0.5)


def test_preprocessing_follows_the_data():
    """The size asked for, statistics of the images at that size."""
    train = load_images("digits").splits["train"]
    preprocessing = data_preprocessing(train, image_size=16)
    assert (preprocessing.image_size, preprocessing.resize_size) == (16, 16)
    assert (preprocessing.mean, preprocessing.std) == channel_statistics(train, preprocessing)
