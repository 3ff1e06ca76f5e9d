"""Batch norms and the convolutions before them; fused batch norm, for which weights are quantized with the batch norm's gain.

Source: supplement of PROFIT, arXiv:2008.04693, Sec. 5, Eq. 3; training as in Krishnamoorthi, arXiv:1806.08342, Sec. 3.2.2.

    g = gamma / sqrt(var + eps)                                   per output channel, running statistics
    batchnorm(conv(a, Q(g W) / g)) = conv(a, Q(g W)) + beta - g mean             in evaluation mode: Eq. 3

So fusing is a matter of the weight alone: it is scaled before its quantizer and scaled back behind it, and the batch norm
stays where it is. In training it divides by the deviation of the batch, which is Krishnamoorthi's correction from running
to batch statistics; gradients are autograd's, also those of gamma. Statistics are part of the weights then, so they are not
computed anew at the end of a run.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.convert.graph import is_foldable, module_of, only_user, trace
from subfour.layers import QuantConv2d


def batchnorm_after(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return, per convolution, the batch norm with a learned scale that alone reads what it gives."""
    following: dict[str, _BatchNorm] = {}
    for node in trace(model).nodes:
        norm = module_of(model, only_user(node))
        if isinstance(module_of(model, node), QuantConv2d) and is_foldable(norm):
            following[str(node.target)] = norm
    return following


def fuse_batchnorm(model: nn.Module) -> None:
    """Let every convolution with a batch norm behind it quantize its weight with the batch norm's gain, in place."""
    for name, norm in batchnorm_after(model).items():
        layer = model.get_submodule(name)
        assert isinstance(layer, QuantConv2d)
        layer.fused_batchnorm = (norm,)
