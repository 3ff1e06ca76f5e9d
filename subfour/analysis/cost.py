"""Size of a quantized model.

Source: supplement of PROFIT, arXiv:2008.04693, Sec. 4, in the reading that reproduces its figures: N weights of w bits, 32
bits per bias of a linear or SE layer, 2 x 32 bits per batch-norm channel; 1 MB = 1e6 bytes.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.layers import quant_layers

BIAS_BITS = 32
BATCHNORM_CHANNEL_BITS = 2 * 32


def model_bytes(model: nn.Module) -> int:
    """Return the bytes a converted model needs at its present weight widths.

    Args:
        model: a converted model.
    """
    bits = 0
    for layer in quant_layers(model).values():
        bits += layer.weight.numel() * layer.weight_quantizer.bits
        bits += layer.bias.numel() * BIAS_BITS if layer.bias is not None else 0
    bits += sum(m.num_features * BATCHNORM_CHANNEL_BITS for m in model.modules() if isinstance(m, _BatchNorm))
    return (bits + 7) // 8
