"""A quantizer and a network of one's own, for every command of subfour, in a package of one's own.

pip install -e examples/mylab
subfour train digits --quantizer mylab/clip --model mylab/separable
subfour export runs/NAME --out separable.onnx
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from subfour.ops import QuantParams
from subfour.quantizers import PACT, Quantizer, QuantizerPair


class ClippedWeight(Quantizer):
    """Weights between -clip and clip; the clip starts at max|w| and is learned through the one form's own gradient."""

    def __init__(self) -> None:
        """Make a weight quantizer whose clip is not yet known."""
        super().__init__("signed")
        self.clip = nn.Parameter(torch.tensor(float("nan")))  # NaN: not calibrated

    def params(self) -> QuantParams:
        """Return the step from value to code and the one back; they are the same here."""
        step = self.clip / self.grid.qmax
        return QuantParams(self.grid, step, step)

    def fit(self, samples: Tensor) -> None:
        """Set the clip from the layer's weights."""
        self.clip.copy_(samples.abs().max())


CLIP = QuantizerPair(activation=PACT, weight=ClippedWeight, takes_start=True)


class Separable(nn.Sequential):
    """Depthwise separable convolutions; subfour reads them from the graph, whatever their names."""

    def __init__(self, num_classes: int, *, width: float = 1.0) -> None:
        """Make the network with random weights. `width` is what --architecture.width sets."""
        channels = [round(32 * width), round(64 * width), round(128 * width)]
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 3, 2, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU6()]
        for entering, leaving in pairwise(channels):
            for convolution in (
                nn.Conv2d(entering, entering, 3, 2, 1, groups=entering, bias=False),
                nn.Conv2d(entering, leaving, 1, bias=False),
            ):
                layers += [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes))
