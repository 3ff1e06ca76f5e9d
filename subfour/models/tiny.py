"""A MobileNet v3 for 32x32 images that trains in seconds on a CPU: every idea of the large one, once or twice.

Stem, h-swish, ReLU, squeeze-and-excitation, skips, 3x3 and 5x5 depthwise convolutions, five of them padded and fed by h-swish.
The stem and two blocks halve the map: 32 -> 16 -> 8 -> 4, so that padding and AIWQ still mean something at the end. About
74,000 parameters with 10 classes.
"""

from functools import partial

from torch import nn

LAST_CHANNELS = 128


def tiny_mobilenet_v3(num_classes: int = 10, *, width: float = 1.0, dropout: float = 0.2) -> nn.Module:
    """Return the network with random weights.

    Args:
        num_classes: size of the head.
        width: multiplies every channel count, which is then rounded to a multiple of 8.
        dropout: probability before the head.
    """
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3  # noqa: PLC0415 (slow to import)

    block = partial(InvertedResidualConfig, dilation=1, width_mult=width)
    blocks = [  # input, kernel, expanded, output channels, SE, activation, stride
        block(16, 3, 16, 16, False, "RE", 1),
        block(16, 3, 64, 24, False, "HS", 2),
        block(24, 3, 72, 24, True, "HS", 1),
        block(24, 5, 72, 32, True, "HS", 2),
        block(32, 5, 120, 32, True, "HS", 1),
    ]
    # Torchvision's momentum for v3, 0.01, needs hundreds of steps an epoch; digits has about 25.
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.1)
    last_channels = InvertedResidualConfig.adjust_channels(LAST_CHANNELS, width)
    network: nn.Module = MobileNetV3(blocks, last_channels, num_classes, norm_layer=norm, dropout=dropout)
    return network
