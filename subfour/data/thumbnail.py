"""A small copy of an image, as the bytes of a PNG file."""

import io

from PIL import Image

SIDE = 96
"""Pixels of the longer side."""


def thumbnail(image: Image.Image) -> bytes:
    """Return an image as PNG, scaled down until neither side is longer than `SIDE`.

    Args:
        image: decoded; not changed.
    """
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()
