"""Where every quantizer's ranges lie, as plain numbers for the log: how they move over a run shows what was learned."""

from torch import nn

from subfour.layers import quant_layers
from subfour.quantizers import Quantizer

LayerRanges = dict[str, list[float]]
"""`activation` and `weight` -> [input range, output range], of those that quantize."""


def layer_ranges(model: nn.Module) -> dict[str, LayerRanges]:
    """Return the ranges of every layer that quantizes anything, six digits each; of ranges per channel the widest.

    The input range is where values are clipped, less the offset; the output range is the value of the largest code, less the
    offset. In DuQ these are a and c.

    Args:
        model: converted and calibrated.
    """
    ranges: dict[str, LayerRanges] = {}
    for name, layer in quant_layers(model).items():
        quantizers = {"activation": layer.activation_quantizer, "weight": layer.weight_quantizer}
        if here := {role: _ends(quantizer) for role, quantizer in quantizers.items() if quantizer.enabled and quantizer.uniform}:
            ranges[name] = here
    return ranges


def _ends(quantizer: Quantizer) -> list[float]:
    params = quantizer.params()
    return [float(f"{step.max().item() * params.highest:.6g}") for step in (params.pre_scale, params.scale)]
