"""Setting the ranges of quantizers that begin to quantize.

Weights are at hand; activations are sampled over several batches with every activation still in float, so that the order of
the layers does not matter. A quantizer that is never reached is an error, not a silent float layer.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from subfour.layers import QuantLayer, quant_layers
from subfour.ops import FLOAT_BITS
from subfour.seeding import derive_seed

SAMPLES_PER_BATCH = 65_536
"""Values kept per quantizer and batch."""


def set_bits(model: nn.Module, weight_bits: int, activation_bits: int) -> None:
    """Set the widths of every quantized layer; ranges stay as they are."""
    for layer in quant_layers(model).values():
        layer.set_bits(weight_bits, activation_bits)


def calibrate_weights(model: nn.Module, *, anew: bool) -> None:
    """Set the range of every weight quantizer that quantizes and has none; with `anew`, of all that quantize.

    Low widths ask for `anew` as they begin: the authors keep 0.9 max|w| from 8 bits down, which sets most 2-bit codes to 0.
    """
    for layer in quant_layers(model).values():
        quantizer = layer.weight_quantizer
        if quantizer.enabled and (anew or not quantizer.initialized):
            quantizer.initialize(layer.folded_weight().detach())


def missing_ranges(model: nn.Module) -> list[str]:
    """Return the names, in the state dict, of the ranges that quantize and are not set for their width."""
    missing = []
    for name, layer in quant_layers(model).items():
        for part in ("weight_quantizer", "activation_quantizer"):
            quantizer = layer.get_submodule(part)
            if quantizer.enabled and not quantizer.initialized:
                entries = quantizer.state_dict().items()
                missing += [f"{name}.{part}.{entry}" for entry, value in entries if value.is_floating_point()]
    return missing


def needs_calibration(model: nn.Module) -> bool:
    """Return whether an activation quantizer that quantizes has no range yet."""
    return any(_uncalibrated(layer) for layer in quant_layers(model).values())


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> None:
    """Set the range of every activation quantizer that has none, from what enters it.

    Args:
        model: a converted model; its mode is restored.
        batches: training images [N, 3, H, W], normalised, and labels, which are not used.
        device: where the model lies.

    Raises:
        ValueError: a quantizer was never reached, or saw no value that tells anything.
    """
    all_layers = quant_layers(model)
    widths = {name: layer.activation_quantizer.bits for name, layer in all_layers.items()}
    collectors = {name: _Collector(name) for name, layer in all_layers.items() if _uncalibrated(layer)}
    handles = [all_layers[name].register_forward_pre_hook(collector) for name, collector in collectors.items()]
    was_training = model.training
    model.eval()
    for layer in all_layers.values():
        layer.activation_quantizer.bits = FLOAT_BITS
    try:
        for images, _ in batches:
            model(images.to(device))
    finally:
        for handle in handles:
            handle.remove()
        for name, layer in all_layers.items():
            layer.activation_quantizer.bits = widths[name]
        model.train(was_training)
    for name, collector in collectors.items():
        if not collector.samples:
            raise ValueError(f"{name}: the quantizer at its input was never reached in calibration; is the layer used?")
        try:
            all_layers[name].activation_quantizer.initialize(torch.cat(collector.samples))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _uncalibrated(layer: QuantLayer) -> bool:
    return layer.activation_quantizer.enabled and not layer.activation_quantizer.initialized


class _Collector:
    """Forward pre-hook that keeps a random sample of a layer's input."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples: list[Tensor] = []

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        del layer
        values = inputs[0].detach().flatten()
        if values.numel() > SAMPLES_PER_BATCH:
            generator = torch.Generator().manual_seed(derive_seed("calibrate", self.name, len(self.samples)))
            values = values[torch.randint(values.numel(), (SAMPLES_PER_BATCH,), generator=generator).to(values.device)]
        self.samples.append(values)
