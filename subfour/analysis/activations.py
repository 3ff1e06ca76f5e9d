"""What really enters every quantizer of a trained network, and what the quantizer makes of it.

One pass over some images keeps a sample of each layer's input; the weights are there as a whole. From these follow the
quantization error, the codes that nothing uses (dead), the values beyond the range (saturated), and the network's mistakes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from subfour.layers import LayerKind, QuantConv2d, quant_layers
from subfour.quantizers import Quantizer

VALUES_PER_BATCH = 8192
"""Values of each layer's input kept from each batch, evenly spaced."""


@dataclass(frozen=True, kw_only=True)
class QuantizerSample:
    """A quantizer and values it met."""

    layer: str
    kind: LayerKind
    role: Literal["activation", "weight"]
    quantizer: Quantizer
    pad_value: float
    """What the layer's border is padded with; 0 for a weight, and where nothing is padded."""
    pads: bool
    """Whether the layer pads its input at all."""
    values: Tensor
    """Float [N]."""

    @property
    def domain(self) -> str:
        """Kind of values the quantizer was made for."""
        return self.quantizer.domain

    @cached_property
    def levels(self) -> Tensor:
        """The values of all codes, rising."""
        grid = self.quantizer.grid
        with torch.no_grad():
            return self.quantizer.values(torch.arange(grid.qmin, grid.qmax + 1).float())

    @cached_property
    def codes(self) -> Tensor:
        """The code of each value."""
        with torch.no_grad():
            return self.quantizer.codes(self.values.clone())

    @cached_property
    def counts(self) -> Tensor:
        """How many values have each code, in the order of the levels."""
        return torch.bincount((self.codes - self.quantizer.grid.qmin).long(), minlength=len(self.levels))

    @property
    def error(self) -> float:
        """Mean squared error over mean square of the values."""
        with torch.no_grad():
            wrong = self.values - self.quantizer.values(self.codes.clone())
        return float(wrong.square().mean() / self.values.square().mean().clamp_min(1e-30))

    @property
    def dead_share(self) -> float:
        """Share of the codes that no value has."""
        return float((self.counts == 0).float().mean())

    @property
    def saturated_share(self) -> float:
        """Share of the values that lie beyond the range by more than half a step, and are clipped."""
        if not self.quantizer.uniform:
            below, above = (self.levels[1] - self.levels[0]) / 2, (self.levels[-1] - self.levels[-2]) / 2
            return float(((self.values < self.levels[0] - below) | (self.values > self.levels[-1] + above)).float().mean())
        with torch.no_grad():
            params = self.quantizer.params()
            position = (self.values - params.offset) / params.pre_scale
        return float(((position > params.highest + 0.5) | (position < params.lowest - 0.5)).float().mean())

    @property
    def commonest_share(self) -> float:
        """Share of the values that have the commonest code."""
        return float(self.counts.max() / len(self.codes))

    @property
    def negative_share(self) -> float:
        """Share of the values below 0."""
        return float((self.values < 0).float().mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """An image that the network takes for something else."""

    index: int
    """Place among the images."""
    label: int
    predicted: int
    confidence: float
    """Probability that the network gives its prediction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What a network did with some images."""

    samples: list[QuantizerSample]
    """Of every quantizer that is not float: activations first, in the model's order, then weights with one range each."""
    mistakes: list[Mistake]
    """The surest first."""
    images: int


@torch.no_grad()
def probe(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], answering: nn.Module | None = None) -> Probe:
    """Return what a trained network does with some images.

    Args:
        model: converted, at its widths, in evaluation mode, on the CPU.
        batches: normalised images [N, 3, H, W] and labels [N].
        answering: what gives the answers; None: the model.
    """
    layers = quant_layers(model)
    kept: dict[str, list[Tensor]] = {name: [] for name, layer in layers.items() if layer.activation_quantizer.enabled}

    def keep(name: str, values: Tensor) -> None:
        flat = values.flatten()
        kept[name].append(flat[:: max(1, flat.numel() // VALUES_PER_BATCH)].clone())

    handles = [
        layers[name].activation_quantizer.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0]))
        for name in kept
    ]
    mistakes: list[Mistake] = []
    images = 0
    try:
        for inputs, labels in batches:
            logits = model(inputs)
            probabilities = (logits if answering is None else answering(inputs)).softmax(dim=1)
            confidences, predictions = probabilities.max(dim=1)
            for place in (predictions != labels).nonzero().flatten().tolist():
                mistakes.append(
                    Mistake(
                        index=images + place,
                        label=int(labels[place]),
                        predicted=int(predictions[place]),
                        confidence=float(confidences[place]),
                    )
                )
            images += len(labels)
    finally:
        for handle in handles:
            handle.remove()
    samples = []
    for name, values in kept.items():
        layer = layers[name]
        samples.append(
            QuantizerSample(
                layer=name,
                kind=layer.kind,
                role="activation",
                quantizer=layer.activation_quantizer,
                pad_value=layer.border if isinstance(layer, QuantConv2d) else 0.0,
                pads=any(getattr(layer, "_reversed_padding_repeated_twice", ())),
                values=torch.cat(values),
            )
        )
    for name, layer in layers.items():
        if layer.weight_quantizer.enabled and _has_one_range(layer.weight_quantizer):
            samples.append(
                QuantizerSample(
                    layer=name,
                    kind=layer.kind,
                    role="weight",
                    quantizer=layer.weight_quantizer,
                    pad_value=0.0,
                    pads=False,
                    values=layer.folded_weight().detach().flatten(),
                )
            )
    return Probe(samples=samples, mistakes=sorted(mistakes, key=lambda mistake: -mistake.confidence), images=images)


def _has_one_range(quantizer: Quantizer) -> bool:
    return quantizer.uniform and quantizer.params().scale.numel() == 1
