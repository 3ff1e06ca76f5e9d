import random
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from subfour.data.augment import AREA, ASPECT_RATIO, Part, cutout, random_box, random_crop, random_flip, random_resized_crop

from .builders import geometry, noise, picture


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifts(image: Tensor, padding: int) -> dict[tuple[int, int], Tensor]:
    """Return every shifted version of an image [3, H, W], by the definition."""
    padded = F.pad(image, (padding,) * 4)
    _, height, width = image.shape
    steps = range(2 * padding + 1)
    return {(down, right): padded[:, down : down + height, right : right + width] for down in steps for right in steps}


def test_each_crop_is_the_image_shifted():
    """All (2p+1)^2 shifts occur, equally often, and black comes in."""
    pixels = torch.from_numpy(noise(1, 3, 8, 8)).clamp(min=1).repeat(4000, 1, 1, 1)
    crops = random_crop(pixels, 1, generator())
    counts = [int((crops == shifted).flatten(1).all(1).sum()) for shifted in shifts(pixels[0], 1).values()]
    assert sum(counts) == 4000
    assert min(counts) > 4000 / 9 * 0.8


def test_crops_differ_within_a_batch_and_keep_their_order():
    """Output i is a view of input i."""
    pixels = torch.from_numpy(noise(16, 3, 8, 8))
    crops = random_crop(pixels, 2, generator())
    chosen = [
        [shift for shift, shifted in shifts(image, 2).items() if torch.equal(crop, shifted)]
        for image, crop in zip(pixels, crops, strict=True)
    ]
    assert all(len(fits) == 1 for fits in chosen)
    assert len({fits[0] for fits in chosen}) > 8


def test_no_padding_changes_nothing():
    """Images under 8 pixels have an eighth of nothing."""
    pixels = torch.from_numpy(noise(4, 3, 6, 6))
    assert torch.equal(random_crop(pixels, 0, generator()), pixels)


def test_half_of_the_images_are_mirrored():
    """Each is the image itself or its mirror image."""
    pixels = torch.from_numpy(noise(1000, 3, 4, 4))
    flipped = random_flip(pixels, generator())
    same = (flipped == pixels).flatten(1).all(1)
    mirrored = (flipped == pixels.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 0.45 < float(mirrored.float().mean()) < 0.55


def test_a_square_of_each_image_is_blank():
    """Its centre is every pixel, equally often; what lies outside the image is cut off, and nothing else changes."""
    pixels = torch.from_numpy(noise(1, 3, 6, 8)).clamp(min=10).repeat(9600, 1, 1, 1)
    fill = torch.tensor([1, 2, 3])
    views = cutout(pixels, 3, fill, generator())
    blank = (views == fill.view(1, 3, 1, 1)).all(1)
    assert torch.equal(views.movedim(1, -1)[~blank], pixels.movedim(1, -1)[~blank])
    counts = []
    for row in range(6):
        for column in range(8):
            square = torch.zeros(6, 8, dtype=torch.bool)
            square[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
            counts.append(int((blank == square).flatten(1).all(1).sum()))
    assert sum(counts) == 9600
    assert min(counts) > 200 * 0.75
    assert max(counts) < 200 * 1.25


def test_a_part_of_a_batch_is_blank_where_the_whole_is():
    """Workers who share a batch see what one would."""
    pixels = torch.from_numpy(noise(8, 3, 8, 8)).clamp(min=10)
    places = torch.tensor([1, 4, 5])
    whole = cutout(pixels, 4, torch.zeros(3), generator())
    assert torch.equal(cutout(pixels[places], 4, torch.zeros(3), generator(), Part(8, places)), whole[places])


def test_a_generator_decides_everything():
    """Equal seeds give equal views, whatever the global generator does."""
    pixels = torch.from_numpy(noise(64, 3, 8, 8))
    first = random_flip(random_crop(pixels, 1, generator(1)), generator(2))
    torch.manual_seed(99)
    assert torch.equal(first, random_flip(random_crop(pixels, 1, generator(1)), generator(2)))
    assert not torch.equal(first, random_flip(random_crop(pixels, 1, generator(3)), generator(2)))


def test_boxes_lie_inside_and_have_the_drawn_area_and_shape():
    """Up to rounding to whole pixels."""
    rng = random.Random(0)
    areas = []
    for _ in range(2000):
        left, top, right, bottom = random_box(500, 375, rng)
        assert 0 <= left < right <= 500
        assert 0 <= top < bottom <= 375
        assert ASPECT_RATIO[0] * 0.97 < (right - left) / (bottom - top) < ASPECT_RATIO[1] * 1.03
        areas.append((right - left) * (bottom - top) / (500 * 375))
    assert min(areas) < AREA[0] * 1.2
    assert max(areas) > AREA[1] * 0.95


def test_a_very_long_image_gives_its_middle():
    """No box of an allowed shape fits in ten tries, almost surely."""
    assert random_box(4000, 30, random.Random(0)) == (1980, 0, 2020, 30)
    assert random_box(30, 4000, random.Random(0)) == (0, 1980, 30, 2020)
    assert random_box(1, 1, random.Random(0)) == (0, 0, 1, 1)


def test_a_resized_crop_is_a_resized_part_of_the_image():
    """With its own random numbers drawn in order: box, then flip."""
    image = picture(width=90, height=70)
    preprocessing = replace(geometry(32), interpolation="bicubic")
    flips = 0
    for seed in range(20):
        rng = random.Random(seed)
        view = image.crop(random_box(90, 70, rng)).resize((32, 32), Image.Resampling.BICUBIC)
        expected = np.asarray(view).transpose(2, 0, 1)
        if rng.random() < 0.5:
            expected, flips = expected[..., ::-1], flips + 1
        pixels = random_resized_crop(image, preprocessing, random.Random(seed))
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, expected)
    assert 0 < flips < 20
