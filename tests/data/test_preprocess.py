import io
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as torchvision_functional

from subfour.data.preprocess import Preprocessing, evaluation_pixels, normalize, to_rgb

from .builders import geometry, noise, picture

IMAGENET = Preprocessing(
    image_size=64, resize_size=73, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", 0, "image_size: 0 is not possible; use 1 pixel or more"),
        ("resize_size", 63, "resize_size: 63 is less than image_size 64"),
        ("interpolation", "nearest", "interpolation: 'nearest' is not known; use bilinear or bicubic"),
        ("mean", (0.5,), "mean: (0.5,) is not possible; give three values in 0..1"),
        ("mean", (124.0, 116.0, 104.0), "give three values in 0..1"),
        ("std", (0.2, 0.2, 0.0), "std: (0.2, 0.2, 0.0) is not possible; give three positive values"),
        ("std", (0.2, 0.2, float("nan")), "give three positive values"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, message: str):
    """Every field is checked."""
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(IMAGENET, **{field: value})


@pytest.mark.parametrize(("width", "height"), [(64, 64), (73, 73), (500, 375), (375, 501), (41, 300), (90, 31)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_pixels_are_those_of_torchvision(width: int, height: int, interpolation: str):
    """Stock weights see the very pixels they were evaluated on."""
    image = picture(width=width, height=height)
    resized = torchvision_functional.resize(image, 73, InterpolationMode(interpolation))
    expected = np.asarray(torchvision_functional.center_crop(resized, 64)).transpose(2, 0, 1)
    pixels = evaluation_pixels(image, replace(IMAGENET, interpolation=interpolation))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, expected)


def test_an_image_of_the_right_size_is_left_alone():
    """No filter touches pixels that fit."""
    image = picture(width=32, height=32)
    assert np.array_equal(evaluation_pixels(image, geometry(32)), np.asarray(image).transpose(2, 0, 1))


def test_normalize_is_the_same_in_numpy():
    """Each of the 3 x 256 values has the bits that numpy computes in float32."""
    levels = np.arange(256, dtype=np.uint8)
    pixels = torch.from_numpy(np.broadcast_to(levels.reshape(1, 1, 16, 16), (2, 3, 16, 16)).copy())
    values = normalize(pixels, IMAGENET)
    assert values.dtype == torch.float32
    assert values.is_contiguous(memory_format=torch.channels_last)
    mean, std = (np.array(numbers, np.float32)[:, None] for numbers in (IMAGENET.mean, IMAGENET.std))
    expected = (levels.astype(np.float32) / np.float32(255) - mean) / std
    assert np.array_equal(values[1].flatten(1).numpy(), expected)
    assert int(pixels.max()) == 255, "the pixels were changed in place"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_8_bit_mode_becomes_rgb(mode: str):
    """What a user may have in a folder is taken."""
    image = to_rgb(picture().convert(mode))
    assert (image.mode, image.size) == ("RGB", (12, 10))


def test_grey_gives_three_equal_channels_and_transparency_is_dropped():
    """The colours stay what they are."""
    grey = noise(5, 5)
    assert all(np.array_equal(channel, grey) for channel in np.asarray(to_rgb(Image.fromarray(grey))).transpose(2, 0, 1))
    colours = noise(5, 5, 4)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(colours, "RGBA"))), colours[..., :3])


def test_a_transparent_palette_becomes_rgb_without_a_warning():
    """Nothing disturbs the progress display."""
    palette = picture().convert("P")
    buffer = io.BytesIO()
    palette.save(buffer, "png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = to_rgb(Image.open(buffer))
    assert np.array_equal(np.asarray(image), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_refused(dtype: type):
    """Pillow would clip at 255 and return a white image."""
    with pytest.raises(ValueError, match="has more than 8 bits a channel; save the image with 8 bits"):
        to_rgb(Image.fromarray(np.full((4, 4), 3000, dtype)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_once_however_it_is_stored(kind: str, orientation: int):
    """Whoever hands it on in RGB and looks again finds it upright."""
    image = picture(width=3, height=2).resize((48, 32), Image.Resampling.NEAREST)
    exif = image.getexif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif)
    buffer.seek(0)
    with Image.open(buffer) as stored:
        stored.load()
        read = to_rgb(stored)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)).convert("RGB"))
    assert read.size == ((48, 32) if orientation < 5 else (32, 48))
    assert np.array_equal(np.asarray(read), expected)
    assert np.array_equal(np.asarray(to_rgb(read)), expected)


def test_exif_that_cannot_be_read_turns_nothing():
    """Some of ImageNet's have such."""
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10)).save(buffer, "JPEG", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x09junk")
    for exif in (buffer.getvalue(), buffer.getvalue().replace(b"MM\0\x2a", b"XXXX")):
        with Image.open(io.BytesIO(exif)) as stored, warnings.catch_warnings():
            warnings.simplefilter("error")
            assert to_rgb(stored).size == (12, 10)
