"""Quantize a stock MobileNet v3 to 4 bits, without training, and look at what was made.

    python examples/01_quantize.py [torchvision/mobilenet_v3_large]

Conversion exchanges layers in place: names, parameters and `forward` stay the model's own. It starts at 32/32 bits, where
nothing is quantized; `calibrate_for` chooses the widths and sets the ranges. Accuracy takes training: 02_profit_digits.py.
"""

import sys

import torch

from subfour.analysis.cost import model_bytes
from subfour.convert import convert
from subfour.convert.calibrate import calibrate_for
from subfour.layers import quant_layers
from subfour.models import build_model

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(name: str) -> None:
    """Convert, calibrate and print one line per layer."""
    torch.manual_seed(0)
    model = build_model(name, num_classes=10, weights="none").model.eval()  # weights="pretrained" downloads them
    pixels = torch.rand(16, 3, 96, 96)  # stands for your own images, in 0..1
    images = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    labels = torch.zeros(len(images), dtype=torch.long)  # calibration does not use them

    rules = convert(model, quantizer="duq", padding="negative", mean=MEAN, std=STD)
    float_bytes = model_bytes(model)
    calibrate_for(model, weight_bits=4, activation_bits=4, batches=[(images, labels)])

    layers = quant_layers(model)
    print(f"{'layer':<32} {'kind':<9} {'weight codes':>12}  input           padded with  fed by")
    for rule in rules:
        layer = layers[rule.name]
        codes = layer.weight_quantizer.codes(layer.weight).detach()
        span = f"{int(codes.min())} .. {int(codes.max())}"
        entering = f"{layer.activation_quantizer.bits}-bit {rule.domain}"
        print(f"{rule.name:<32} {rule.kind:<9} {span:>12}  {entering:<15} {rule.pad_value:>11}  {rule.source}")

    logits = model(images)
    print(f"\n{len(rules)} layers, logits {list(logits.shape)}, {float_bytes / 1e6:.2f} MB in float, ", end="")
    print(f"{model_bytes(model) / 1e6:.2f} MB at 4 bits")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["torchvision/mobilenet_v3_large"])
