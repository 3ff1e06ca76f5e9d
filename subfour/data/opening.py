"""Which image files are opened, and how large ones. Imports no torch: whoever predicts opens images too."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, as Pillow calls it. Of its other formats EPS is a program, which Pillow has Ghostscript run."""


def open_image(file: str | Path | IO[bytes]) -> Image.Image:
    """Open an image of one of the `FORMATS`, whatever its name says; it is not decoded yet."""
    return Image.open(file, formats=FORMATS)


@contextmanager
def pixels_limited() -> Iterator[None]:
    """Let images with more pixels than Pillow thinks safe raise where they are opened or decoded, and not only warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
