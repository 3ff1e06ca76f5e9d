"""The 1,797 handwritten digits of 8x8 pixels that ship inside scikit-learn: real images without a download."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from subfour.data.images import ImageData, Split


@dataclass(frozen=True, eq=False)
class DigitSplit(Split):
    """Grey images held as one array."""

    pixels: NDArray[np.uint8]
    labels: Tensor

    def open(self, index: int) -> Image.Image:
        """Return the grey image of 8x8 pixels."""
        return Image.fromarray(self.pixels[index])

    def where(self, index: int) -> str:
        """Return the image's number in its split."""
        return f"digit {index}"


def load_digits() -> ImageData:
    """Return the digits; of each class every fifth image is for validation, the others for training."""
    from sklearn import datasets  # noqa: PLC0415 (slow to import, and only this source needs it)

    digits = datasets.load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    labels = torch.from_numpy(digits.target).long()
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        held_out[(labels == label).nonzero()[4::5]] = True
    return ImageData(
        classes=tuple("0123456789"),
        splits={
            name: DigitSplit(pixels=pixels[chosen.numpy()], labels=labels[chosen])
            for name, chosen in (("train", ~held_out), ("validation", held_out))
        },
    )
