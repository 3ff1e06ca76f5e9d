"""MobileNet v1: depthwise separable convolutions, ReLU, batch norm after every convolution.

Source: Howard et al., arXiv:1704.04861, Table 1. The table prints stride 2 for the last depthwise convolution but a 7x7 output
for it, so it is 1, as in the authors' code. 568,740,352 MACs at 224 pixels and 1,000 classes.
"""

from collections import OrderedDict

from torch import Tensor, nn

STEM_CHANNELS = 32
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Output channels at width 1 and stride of each block."""


class MobileNetV1(nn.Module):
    """MobileNet v1, images [N, 3, H, W] -> logits [N, num_classes]."""

    def __init__(self, num_classes: int = 1000, *, width: float = 1.0, dropout: float = 0.0) -> None:
        """Make the network with random weights (He et al., fan out).

        Args:
            num_classes: size of the head.
            width: multiplies every channel count, which is then rounded to a multiple of 8.
            dropout: probability before the head.
        """
        super().__init__()
        channels = _scaled(STEM_CHANNELS, width)
        self.stem = _conv_norm_relu(3, channels, kernel_size=3, stride=2)
        self.blocks = nn.Sequential()
        for base_channels, stride in BLOCKS:
            out_channels = _scaled(base_channels, width)
            depthwise = _conv_norm_relu(channels, channels, kernel_size=3, stride=stride, groups=channels)
            pointwise = _conv_norm_relu(channels, out_channels, kernel_size=1)
            self.blocks.append(nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise)))
            channels = out_channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = self.pool(self.blocks(self.stem(images))).flatten(1)
        logits: Tensor = self.classifier(self.dropout(features))
        return logits


def _conv_norm_relu(in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels), act=nn.ReLU(inplace=True)))


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)
