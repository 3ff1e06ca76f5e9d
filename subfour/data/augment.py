"""Random views of training images; each is a function of the generator it is given, and of the image's place in its batch.

`random_crop`, `random_flip` and `cutout` work on whole batches; `random_resized_crop` on one image as it is decoded, for ImageNet
(Szegedy et al., arXiv:1409.4842; torchvision's constants and fallback).
"""

import math
import random
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.data.preprocess import RESAMPLING, Preprocessing, channels_first

AREA = (0.08, 1.0)
"""Share of the image that a resized crop covers."""

ASPECT_RATIO = (3 / 4, 4 / 3)
"""Width / height of a resized crop."""


class Part(NamedTuple):
    """Some images of a batch. The generator draws for the whole batch, so that a view does not depend on who else is there."""

    size: int
    """Images of the batch."""
    places: Tensor
    """Of the images that are there, [N]."""


def random_crop(pixels: Tensor, padding: int, generator: Generator, part: Part | None = None) -> Tensor:
    """Return a batch [N, 3, H, W] in which each image is shifted by up to `padding` pixels; black comes in at the border.

    Args:
        pixels: [N, 3, H, W].
        padding: pixels.
        generator: of the batch.
        part: which images of a batch they are; None: all.
    """
    count, _, height, width = pixels.shape
    size, places = part or (count, torch.arange(count))
    padded = F.pad(pixels, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view [N, 3, shift, shift, H, W]
    down, right = torch.randint(2 * padding + 1, (2, size), generator=generator)[:, places]
    return windows[torch.arange(count), :, down, right]


def random_flip(pixels: Tensor, generator: Generator, part: Part | None = None) -> Tensor:
    """Return a batch [N, 3, H, W] in which each image is mirrored with probability 1/2; see `random_crop`."""
    size, places = part or (len(pixels), torch.arange(len(pixels)))
    flipped = torch.rand(size, generator=generator)[places] < 0.5
    return torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(3), pixels)


def cutout(pixels: Tensor, side: int, fill: Tensor, generator: Generator, part: Part | None = None) -> Tensor:
    """Return a batch [N, 3, H, W] in which a square of each image is blank; see `random_crop`.

    Source: DeVries and Taylor, arXiv:1708.04552.

    Args:
        pixels: [N, 3, H, W].
        side: of the square, pixels. Its centre is any pixel, so that part of it may lie outside.
        fill: what blank is, [3]; the mean colour is 0 for the network.
        generator: of the batch.
        part: which images of a batch they are; None: all.
    """
    count, _, height, width = pixels.shape
    size, places = part or (count, torch.arange(count))
    first_row = torch.randint(height, (size, 1), generator=generator)[places] - side // 2
    first_column = torch.randint(width, (size, 1), generator=generator)[places] - side // 2
    rows, columns = torch.arange(height) - first_row, torch.arange(width) - first_column
    inside_rows, inside_columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    blank = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(blank, fill.to(pixels.dtype).view(1, 3, 1, 1), pixels)


def random_resized_crop(image: Image.Image, preprocessing: Preprocessing, rng: random.Random) -> NDArray[np.uint8]:
    """Return a random part of an RGB image, resized and perhaps mirrored, as uint8 [3, H, W]."""
    size = (preprocessing.image_size, preprocessing.image_size)
    view = image.crop(random_box(image.width, image.height, rng)).resize(size, RESAMPLING[preprocessing.interpolation])
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return channels_first(view)


def random_box(width: int, height: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of a part whose area and shape are drawn from `AREA` and `ASPECT_RATIO`."""
    for _ in range(10):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = rng.randrange(width - crop_width + 1), rng.randrange(height - crop_height + 1)
            return left, top, left + crop_width, top + crop_height
    # No luck, as with a very long image: the largest centred part of allowed shape.
    crop_width = min(width, round(height * ASPECT_RATIO[1]))
    crop_height = min(height, round(width / ASPECT_RATIO[0]))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height
