"""The conversion that a configuration asks for."""

from torch import nn

from subfour.convert.equalize import replace_relu6
from subfour.convert.policy import LayerRule
from subfour.convert.rewrite import convert
from subfour.data.preprocess import Preprocessing
from subfour.profit.config import RunConfig
from subfour.quantizers import Quantizer


def convert_for(config: RunConfig, model: nn.Module, preprocessing: Preprocessing) -> list[LayerRule]:
    """Convert a float network in place as a configuration asks, and return why each layer is quantized as it is."""
    if config.start == "dfq":
        replace_relu6(model)
    rules = convert(
        model,
        quantizer=config.quantizer,
        padding=config.padding,
        weight_granularity=config.weight_granularity,
        batchnorm=config.batchnorm,
        skip_bits=config.skip_bits,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.start = config.activation_start
    return rules
