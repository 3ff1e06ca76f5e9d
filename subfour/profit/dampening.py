"""Oscillation dampening: a penalty draws every weight to the centre of its bin, so that it does not flip between two.

Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML 2022, arXiv:2203.11086, Sec. 4.1.

    loss + lambda * sum (Q(w) - clip(w, s n, s p))^2        no gradient through Q(w); lambda rises from 0 by a cosine

Weights that are clipped are not drawn: both terms are the end of the range. In the one form s k is the centre of a bin, which
is DuQ's value only where its two ranges are equal: the centre it is. The paper trains at one width; here lambda rises over
all phases at the width where PROFIT would act. Lambda ends at 0.1, as in the authors' public commands, which take the mean
over each kernel where this, as the paper, takes the sum.
"""

import math

import torch
from torch import Tensor, nn

from subfour.layers import quant_layers
from subfour.profit.step_method import StepMethod
from subfour.quantizers import Quantizer


class Dampening(StepMethod):
    """Adds the penalty of every weight that is quantized and trains."""

    def __init__(self, model: nn.Module, strength: float) -> None:
        """Prepare.

        Args:
            model: a converted model.
            strength: lambda at the end.
        """
        self._layers = list(quant_layers(model).values())
        self.strength = strength

    def penalty(self) -> Tensor | float:
        """Return lambda times the sum over all layers."""
        if self.share_done is None:
            return 0.0
        strength = self.strength * (1 - math.cos(math.pi * self.share_done)) / 2
        moving = [layer for layer in self._layers if layer.weight.requires_grad]
        return strength * sum(distance_to_centres(layer.weight, layer.weight_quantizer) for layer in moving)


def distance_to_centres(weight: Tensor, quantizer: Quantizer) -> Tensor:
    """Return the sum of squared distances of the clipped weights to the centres of their bins."""
    with torch.no_grad():
        centres = quantizer.bin_centres(quantizer.codes(weight))
        low, high = (quantizer.bin_centres(weight.new_tensor(float(code))) for code in (quantizer.grid.qmin, quantizer.grid.qmax))
    return (centres - torch.clamp(weight, low, high)).square().sum()
