"""From an image to what a network reads: size, crop and normalisation, as the weights were trained with.

    pixels = centre_crop(resize(image, short side = resize_size), image_size)      uint8, Pillow
    input  = (pixels / 255 - mean) / std                                           float32

Geometry and normalisation are apart because the deployed network takes the uint8 pixels. Torch is imported where it is used:
reading a `Preprocessing` and making pixels need Pillow and numpy only.
"""

import math
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

if TYPE_CHECKING:
    from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How an image becomes a network's input."""

    image_size: int
    """Height and width of the input, in pixels."""
    resize_size: int
    """Length of the image's short side before the centre crop, in pixels; at least `image_size`."""
    interpolation: Interpolation
    """Pillow's filter for resizing."""
    mean: tuple[float, ...]
    """Of red, green and blue pixels in 0..1."""
    std: tuple[float, ...]
    """Of red, green and blue pixels in 0..1; positive."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.image_size < 1:
            raise ValueError(f"image_size: {self.image_size} is not possible; use 1 pixel or more")
        if self.resize_size < self.image_size:
            raise ValueError(
                f"resize_size: {self.resize_size} is less than image_size {self.image_size}, so there is nothing to crop from; "
                f"use {self.image_size} or more"
            )
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation: {self.interpolation!r} is not known; use {' or '.join(get_args(Interpolation))}")
        if len(self.mean) != 3 or not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean: {self.mean} is not possible; give three values in 0..1 (red, green, blue)")
        if len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std: {self.std} is not possible; give three positive values (red, green, blue)")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Rebuild one from its fields, where lists stand for tuples.

        Raises:
            ValueError: a value is not possible.
            TypeError: a field is missing or not known.
        """
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**fields)

    def resized(self, image_size: int | None) -> "Preprocessing":
        """Return the same for another image size, in pixels; the share that the crop keeps stays. None changes nothing."""
        if image_size is None:
            return self
        return replace(self, image_size=image_size, resize_size=round(image_size * self.resize_size / self.image_size))


def evaluation_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return an image resized and centre-cropped, as uint8 [3, H, W].

    The same pixels as torchvision's Resize and CenterCrop give on a Pillow image.

    Args:
        image: of any size, and any mode `to_rgb` takes.
        preprocessing: sizes and filter.

    Raises:
        ValueError: see `to_rgb`; or resized it has more pixels than Pillow thinks safe.
    """
    image = to_rgb(image)
    short, size = min(image.size), preprocessing.resize_size
    if short != size:
        width, height = (side * size // short for side in image.size)
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"image size: {image.width}x{image.height} would become {width}x{height}, too large; crop it")
        image = image.resize((width, height), RESAMPLING[preprocessing.interpolation])
    crop = preprocessing.image_size
    left, top = (round((side - crop) / 2) for side in image.size)
    return channels_first(image.crop((left, top, left + crop, top + crop)))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB, and upright.

    Grey, palette and CMYK images are converted; transparency is dropped. The EXIF orientation, by which telephones say how
    they were held, is applied. torchvision, with which ImageNet's accuracies are usually measured, ignores it: of ImageNet's
    images a few are then seen in another way up.

    Raises:
        ValueError: the image has more than 8 bits a channel, which Pillow would clip at 255.
    """
    image = _upright(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"image mode: {image.mode} has more than 8 bits a channel; save the image with 8 bits")
    if image.mode == "P":
        image = image.convert("RGBA")  # directly to RGB, Pillow warns of transparency that would be lost
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says; as stored where there is none, or none that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Corrupt EXIF data")
            if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                return image  # without the copy that exif_transpose makes
            return ImageOps.exif_transpose(image)
    except (struct.error, KeyError, SyntaxError, TypeError, ValueError):  # as Pillow's own JPEG reader expects of EXIF
        return image


def channels_first(image: Image.Image) -> NDArray[np.uint8]:
    """Return an RGB image as a contiguous uint8 array [3, H, W]."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def normalize(pixels: "Tensor", preprocessing: Preprocessing) -> "Tensor":
    """Return uint8 pixels [N, 3, H, W] as the network's input, float32 in channels_last order.

    A function of 3 x 256 values, computed by three separate IEEE operations: numpy in float32 gives the same bits.
    """
    import torch  # noqa: PLC0415 (an install that only predicts has no torch)

    mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    values = pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
    return values.contiguous(memory_format=torch.channels_last)
