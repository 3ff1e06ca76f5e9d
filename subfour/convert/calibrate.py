"""Setting the ranges of quantizers that begin to quantize.

Weights are at hand; activations are sampled over several batches with every activation still in float, so that the order of
the layers does not matter. A quantizer that is never reached is an error, not a silent float layer.
"""

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from subfour.convert.skips import set_skip_bits, skip_quantizers
from subfour.layers import quant_layers
from subfour.modes import evaluation_mode
from subfour.ops import FLOAT_BITS
from subfour.quantizers import Quantizer
from subfour.seeding import derive_seed

logger = logging.getLogger(__name__)

SAMPLES_PER_BATCH = 65_536
"""Values kept per quantizer and batch."""


def set_bits(model: nn.Module, weight_bits: int, activation_bits: int) -> None:
    """Set the widths of every quantized layer; ranges stay as they are."""
    for layer in quant_layers(model).values():
        layer.set_bits(weight_bits, activation_bits)
    set_skip_bits(model, activation_bits)


def calibrate_for(model: nn.Module, weight_bits: int, activation_bits: int, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Let a converted model quantize at a width: set it, ranges of weights, and those of activations that have none.

    Args:
        model: a converted model.
        weight_bits: 2..8 or 32.
        activation_bits: 2..8 or 32.
        batches: as `calibrate` takes them.

    Raises:
        ValueError: see `calibrate_weights` and `calibrate`.
    """
    set_bits(model, weight_bits, activation_bits)
    forget_weight_ranges(model)
    calibrate_weights(model)
    calibrate(model, batches)


def forget_weight_ranges(model: nn.Module) -> None:
    """Let the weights' ranges be set anew; call `calibrate_weights` before a width is set again, which finds the old ones.

    The authors keep 0.9 max|w| from 8 bits down, which sets most 2-bit codes to 0.
    """
    for layer in quant_layers(model).values():
        layer.weight_quantizer.initialized = False


def calibrate_weights(model: nn.Module) -> None:
    """Set the range of every weight quantizer that quantizes and has none.

    Raises:
        ValueError: a layer's weights have no range; it is named.
    """
    for name, layer in quant_layers(model).items():
        if layer.weight_quantizer.needs_ranges:
            try:
                layer.weight_quantizer.initialize(layer.folded_weight().detach())
            except ValueError as error:
                raise ValueError(f"{name}.weight: {error}; train or load weights that are not all zero") from None


def missing_ranges(model: nn.Module) -> list[str]:
    """Return the names, in the state dict, of the ranges that quantize and are about to be set."""
    return [
        f"{name}.{entry}"
        for name, quantizer in model.named_modules()
        if isinstance(quantizer, Quantizer) and quantizer.needs_ranges
        for entry, value in quantizer.state_dict().items()
        if value.is_floating_point()
    ]


def needs_calibration(model: nn.Module) -> bool:
    """Return whether an activation quantizer that quantizes has no range yet."""
    return any(quantizer.needs_ranges for _, quantizer in _entrances(model).values())


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the range of every activation quantizer that has none, from what enters it.

    Args:
        model: a converted model; the modes of its modules are restored.
        batches: training images [N, 3, H, W], normalised, and labels, which are not used.

    Raises:
        ValueError: a quantizer was never reached, or saw no value that tells anything.
    """
    device = next(model.parameters()).device
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
        samples, quantizer = torch.cat(collector.samples), entrances[name][1]
        if not samples.any():
            logger.warning("%s: nothing but zeros enters it in calibration, as behind a dead ReLU; its range is a guess", name)
            samples = torch.linspace(-1, 1, 100, device=device)
        try:
            quantizer.initialize(samples)
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
