"""Setting the ranges of quantizers that begin to quantize.

Weights are at hand; activations are sampled over several batches with every activation still in float, so that the order of
the layers does not matter. A quantizer that is never reached is an error, not a silent float layer.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from subfour.convert.skips import set_skip_bits, skip_quantizers
from subfour.layers import quant_layers
from subfour.modes import evaluation_mode
from subfour.ops import FLOAT_BITS
from subfour.quantizers import Quantizer
from subfour.seeding import derive_seed

SAMPLES_PER_BATCH = 65_536
"""Values kept per quantizer and batch."""


def set_bits(model: nn.Module, weight_bits: int, activation_bits: int) -> None:
    """Set the widths of every quantized layer; ranges stay as they are."""
    for layer in quant_layers(model).values():
        layer.set_bits(weight_bits, activation_bits)
    set_skip_bits(model, activation_bits)


def calibrate_weights(model: nn.Module, *, anew: bool) -> None:
    """Set the range of every weight quantizer that quantizes and has none; with `anew`, of all that quantize.

    Raises:
        ValueError: a layer's weights have no range; it is named.

    Low widths ask for `anew` as they begin: the authors keep 0.9 max|w| from 8 bits down, which sets most 2-bit codes to 0.
    """
    for name, layer in quant_layers(model).items():
        quantizer = layer.weight_quantizer
        if quantizer.needs_ranges or (anew and quantizer.enabled):
            try:
                quantizer.initialize(layer.folded_weight().detach())
            except ValueError as error:
                raise ValueError(f"{name}.weight: {error}; train or load weights that are not all zero") from None


def missing_ranges(model: nn.Module, *, anew: bool) -> list[str]:
    """Return the names, in the state dict, of the ranges that quantize and are about to be set.

    They are those that are not set for their width; with `anew`, also those of all weights.
    """
    quantizers = {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}
    weights = {layer.weight_quantizer for layer in quant_layers(model).values()} if anew else set()
    return [
        f"{name}.{entry}"
        for name, quantizer in quantizers.items()
        if quantizer.needs_ranges or (quantizer in weights and quantizer.enabled)
        for entry, value in quantizer.state_dict().items()
        if value.is_floating_point()
    ]


def needs_calibration(model: nn.Module) -> bool:
    """Return whether an activation quantizer that quantizes has no range yet."""
    return any(quantizer.needs_ranges for _, quantizer in _entrances(model).values())


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> None:
    """Set the range of every activation quantizer that has none, from what enters it.

    Args:
        model: a converted model; the modes of its modules are restored.
        batches: training images [N, 3, H, W], normalised, and labels, which are not used.
        device: where the model lies.

    Raises:
        ValueError: a quantizer was never reached, or saw no value that tells anything.
    """
    entrances = _entrances(model)
    widths = {name: quantizer.bits for name, (_, quantizer) in entrances.items()}
    collectors = {name: _Collector(name) for name, (_, quantizer) in entrances.items() if quantizer.needs_ranges}
    handles = [entrances[name][0].register_forward_pre_hook(collector) for name, collector in collectors.items()]
    for _, quantizer in entrances.values():
        quantizer.bits = FLOAT_BITS
    try:
        with evaluation_mode(model):
            for images, _ in batches:
                model(images.to(device))
    finally:
        for handle in handles:
            handle.remove()
        for name, (_, quantizer) in entrances.items():
            quantizer.bits = widths[name]
    for name, collector in collectors.items():
        if not collector.samples:
            raise ValueError(f"{name}: the quantizer at its input was never reached in calibration; is the layer used?")
        try:
            entrances[name][1].initialize(torch.cat(collector.samples))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _entrances(model: nn.Module) -> dict[str, tuple[nn.Module, Quantizer]]:
    """Return every module whose input is quantized, with the quantizer: layers, and blocks with a quantized skip."""
    layers: dict[str, tuple[nn.Module, Quantizer]] = {
        name: (layer, layer.activation_quantizer) for name, layer in quant_layers(model).items()
    }
    return layers | {name: (block, skip.quantizer) for name, (block, skip) in skip_quantizers(model).items()}


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
        self.samples.append(values.clone())  # an operation in place may follow
