"""Photographs to class names with probabilities, by an exported file. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from subfour.data.opening import FORMATS, open_image, pixels_limited
from subfour.data.preprocess import evaluation_pixels
from subfour.export.runtime import Deployed


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """One class for one image."""

    name: str
    probability: float


def predict(deployed: Deployed, images: Sequence[Path], *, top: int = 5) -> list[list[Guess]]:
    """Return the most probable classes of each image, the most probable first.

    Args:
        deployed: the network.
        images: files of the formats that training reads.
        top: classes for each image, or all where there are fewer.

    Raises:
        ValueError: an image cannot be read; the message names it.
    """
    record = deployed.record
    guesses = []
    for path in images:
        probabilities = _softmax(deployed.logits(_pixels(path, deployed)[None])[0])
        best = np.argsort(-probabilities, kind="stable")[:top]
        guesses.append([Guess(name=record.classes[index], probability=float(probabilities[index])) for index in best])
    return guesses


def _pixels(path: Path, deployed: Deployed) -> NDArray[np.uint8]:
    if path.is_dir():
        raise ValueError(f"image: {path} is a folder; name the image files in it")
    if not path.is_file():
        raise ValueError(f"image: there is no file {path}")
    try:
        with pixels_limited(), open_image(path) as image:
            return evaluation_pixels(image, deployed.record.preprocessing)
    except UnidentifiedImageError:
        raise ValueError(f"image: {path} is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's decoders raise nearly every kind on a corrupt file
        raise ValueError(f"image: {path} cannot be read ({error})") from None


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares
