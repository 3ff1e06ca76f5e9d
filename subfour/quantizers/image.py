"""The image keeps its 8 bits: a signed quantizer whose range is fixed by the normalisation.

The range is the largest |(v - mean) / std| of any channel over v = 0 and 1, so no pixel is clipped; it is neither
calibrated nor learned. (The authors do not quantize the image; a percentile would clip 5 % of CIFAR-10's pixels.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from subfour.ops import QuantParams
from subfour.quantizers.base import Quantizer


class ImageQuantizer(Quantizer):
    """Quantizer of normalised pixels."""

    image_range: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Fix the range.

        Args:
            mean: per channel, of pixels in 0..1.
            std: per channel, positive.
        """
        super().__init__("signed")
        largest = max(max(abs(m), abs(1 - m)) / s for m, s in zip(mean, std, strict=True))
        self.register_buffer("image_range", torch.tensor(largest))
        self.initialized = True

    def params(self) -> QuantParams:
        """See the head of this file."""
        grid = self.grid
        step = self.image_range / grid.qmax
        return QuantParams(grid, step, step)

    def fit(self, samples: Tensor) -> None:
        """Do nothing: the range is known."""
