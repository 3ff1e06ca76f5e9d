"""UNIQ, uniform noise injection: weights are quantized to k-quantiles, and trained under the noise of that.

Source: Baskin et al., arXiv:1804.10969, Sec. 3. With Phi the normal distribution, k = 2^n, mean and std of the weights,

    u     = Phi((w - mean) / std)                              uniform, if the weights are normal
    value = mean + std * Phi^-1(clip(u + e))                   training, e uniform in -1/2k .. 1/2k
    value = mean + std * Phi^-1((floor(k u) + 1/2) / k)        evaluation: the middle of one of k bins of equal probability

Its levels are not evenly spaced. It is the one quantizer here without an integer form: a layer is a table of 2^n values, and
`params()` says so. Codes and values go through the table, so that a trained network is saved and read back exactly.

The clip is to 1/2k .. 1 - 1/2k, the outermost levels, where the paper leaves Phi^-1 infinite. Mean and std follow the weights at
each step, without gradient, and rest in evaluation. The paper trains block by block with the noise of one block at a time;
here all layers of a phase have it. Its activations are quantized uniformly: it is paired with `affine`, so that these two
methods differ in the weights alone. AIWQ of its layers contains the noise.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from subfour.ops import IntegerGrid, QuantParams
from subfour.quantizers.base import Quantizer


class UNIQ(Quantizer):
    """UNIQ for one weight tensor."""

    uniform: ClassVar[bool] = False

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        """Make a weight quantizer whose moments are not yet known."""
        super().__init__("signed")
        self.register_buffer("mean", torch.tensor(float("nan")))
        self.register_buffer("std", torch.tensor(float("nan")))

    @property
    def grid(self) -> IntegerGrid:
        """Numbers of the bins at the present width."""
        return IntegerGrid.unsigned(self.bits)

    def params(self) -> QuantParams:
        """Refuse.

        Raises:
            ValueError: always; its levels are a table.
        """
        raise ValueError("quantizer: uniq has no integer form, its 2^n levels are not evenly spaced; use another for integers")

    def codes(self, values: Tensor) -> Tensor:
        """Return the number of the bin of each value, as float."""
        return (self._uniform(values) * self.grid.num_levels).floor().clamp(0, self.grid.qmax)

    def values(self, codes: Tensor) -> Tensor:
        """Return the middle of each bin."""
        return self._normal((codes + 0.5) / self.grid.num_levels)

    def bin_centres(self, codes: Tensor) -> Tensor:
        """Return the middle of each bin: here that is its value."""
        return self.values(codes)

    def quantized(self, values: Tensor) -> Tensor:
        """Quantize; in training, disturb as quantizing would.

        In training mode it draws from torch's generator.
        """
        if not self.training:
            return self.values(self.codes(values))
        self.refit(values)
        half = 0.5 / self.grid.num_levels
        noise = (torch.rand_like(values) * 2 - 1) * half
        return self._normal((self._uniform(values) + noise).clamp(half, 1 - half))

    def _uniform(self, values: Tensor) -> Tensor:
        positions: Tensor = torch.special.ndtr((values - self.mean) / self.std)
        return positions

    def _normal(self, positions: Tensor) -> Tensor:
        deviations: Tensor = torch.special.ndtri(positions)
        return self.mean + self.std * deviations

    def fit(self, samples: Tensor) -> None:
        """Set the moments of the weights.

        Raises:
            ValueError: all weights are equal, or one is not finite.
        """
        std = samples.std(unbiased=False)
        if not 0 < std < math.inf:
            raise ValueError(f"samples: the deviation of the weights is {std:.3g}; are they all zero, or is one not finite?")
        self.mean.copy_(samples.mean())
        self.std.copy_(std)
