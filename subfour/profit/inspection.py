"""What every layer of a network becomes, layer by layer, and why."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from subfour.analysis.stock import IMAGENET_CLASSES
from subfour.convert.calibrate import calibrate_weights, set_bits
from subfour.convert.policy import LayerRule, Padding
from subfour.convert.rewrite import convert
from subfour.layers import QuantConv2d, quant_layers
from subfour.models.zoo import build_model
from subfour.profit.model_file import read_model
from subfour.quantizers import QuantizerName
from subfour.seeding import derive_seed


def inspect_network(
    name: str,
    *,
    weight_bits: int,
    activation_bits: int,
    quantizer: QuantizerName = "duq",
    padding: Padding = "negative",
) -> list[dict[str, Any]]:
    """Return one row per layer of a stock network with random weights, as `inspect_file` does.

    Args:
        name: see models/zoo.py.
        weight_bits: 2..8 or 32.
        activation_bits: 2..8 or 32.
        quantizer: which paper's.
        padding: of convolutions fed by h-swish.
    """
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed("inspect", name))
        model = build_model(name, num_classes=IMAGENET_CLASSES).model.eval()
    rules = convert(model, quantizer=quantizer, padding=padding, mean=(0.5,) * 3, std=(0.5,) * 3)
    set_bits(model, weight_bits, activation_bits)
    calibrate_weights(model)
    return _rows(model, rules)


def inspect_file(path: Path) -> list[dict[str, Any]]:
    """Return one row per layer of a finished run or model file.

    Keys: name, kind, weight_bits, input_bits, quantizer (of the input), pad_value, zero_share (of the quantized
    weights; null in float), source (what feeds the layer), reason.
    """
    trained = read_model(path)
    return _rows(trained.model, trained.rules)


@torch.no_grad()
def _rows(model: nn.Module, rules: list[LayerRule]) -> list[dict[str, Any]]:
    layers = quant_layers(model)
    rows = []
    for rule in rules:
        layer = layers[rule.name]
        weight_quantizer = layer.weight_quantizer
        weight = layer.quantized_weight() if weight_quantizer.enabled else None
        rows.append(
            {
                "name": rule.name,
                "kind": rule.kind,
                "weight_bits": weight_quantizer.bits,
                "input_bits": layer.activation_quantizer.bits,
                "quantizer": f"{type(layer.activation_quantizer).__name__} {rule.domain}",
                "pad_value": layer.border if isinstance(layer, QuantConv2d) else 0.0,
                "zero_share": None if weight is None else float((weight == 0).float().mean()),
                "source": rule.source,
                "reason": rule.reason,
            }
        )
    return rows
