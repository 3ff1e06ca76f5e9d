"""A small copy of an image, as the bytes of a PNG file."""

import io

from PIL import Image


def thumbnail(image: Image.Image, side: int = 96) -> bytes:
    """Return an image as PNG, scaled down until neither side is longer than asked.

    Args:
        image: decoded; not changed.
        side: pixels.
    """
    small = image.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()
