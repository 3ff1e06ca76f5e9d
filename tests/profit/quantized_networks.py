"""Converted, calibrated networks without any training."""

import torch
from torch import nn

from subfour.convert.calibrate import calibrate_for
from subfour.convert.policy import Padding
from subfour.convert.rewrite import BatchNorm, convert
from subfour.quantizers import Granularity, QuantizerName
from tests.convert.stock_networks import NORMALIZATION, random_images, stock_network

TINY = "subfour/tiny_mobilenet_v3"

CPU = torch.device("cpu")


def quantized(
    model: nn.Module,
    weight_bits: int,
    activation_bits: int | None = None,
    *,
    quantizer: QuantizerName = "duq",
    padding: Padding = "negative",
    weight_granularity: Granularity = "layer",
    batchnorm: BatchNorm = "unfused",
    image_size: int = 32,
) -> nn.Module:
    """Return a float network, converted in place and calibrated on random images, in evaluation mode.

    Args:
        model: a float network.
        weight_bits: width of the weights.
        activation_bits: width of the activations; by default the same.
        quantizer: the method.
        padding: of convolutions fed by h-swish.
        weight_granularity: of the ranges of weights.
        batchnorm: fused or not.
        image_size: of the random images.
    """
    kinds = {"weight_granularity": weight_granularity, "batchnorm": batchnorm}
    convert(model, quantizer=quantizer, padding=padding, **kinds, **NORMALIZATION)
    calibrate_for(model, weight_bits, activation_bits or weight_bits, [(random_images(8, image_size), torch.zeros(8))])
    return model.eval()


def tiny(
    weight_bits: int,
    activation_bits: int | None = None,
    *,
    quantizer: QuantizerName = "duq",
    weight_granularity: Granularity = "layer",
    batchnorm: BatchNorm = "unfused",
) -> nn.Module:
    """Return the tiny network, quantized."""
    kinds = {"weight_granularity": weight_granularity, "batchnorm": batchnorm}
    return quantized(stock_network(TINY), weight_bits, activation_bits, quantizer=quantizer, **kinds)
