"""AIWQ of every layer of a network that trains: samples in each step, and their running mean.

Source: PROFIT, arXiv:2008.04693; the authors' train_ts.py. One sample is `instability.py`. A sample above 1 is dropped. The
running mean is divided by the weight of the samples KEPT, so that a layer whose samples are dropped does not rank as stable
(`corrected=False`: the authors' mean, which starts at 0). Both outputs come from the layer's own `apply_weight`, so unchanged
weights give exactly 0 for every kind of layer; the authors' hook pads with 0 where the layer pads with -3/8. On codes (`engine/`)
the two products of scales are rounded apart, and unchanged weights give 0 to the last bits; so they may for a part of the batch,
as a convolution of fewer images may be computed in another order.

A sample over every k-th image of a batch costs less, and asks every update the same question. Workers whose shares k divides, and
parts of a batch, take the same images as one worker with the whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from subfour import collective
from subfour.layers import QuantConv2d, freezable_layers
from subfour.profit.instability import moments, pooled, samples

LARGEST_SAMPLE = 1.0
"""Samples above this are dropped (authors)."""


@dataclass(slots=True)
class RunningInstability:
    """AIWQ of one layer so far."""

    mean: float = 0.0
    """Decayed sum of the kept samples."""
    kept: int = 0
    dropped: int = 0

    def add(self, sample: float | None, decay: float) -> None:
        """Take a sample in, or count it as dropped; None is no sample."""
        if sample is None:
            return
        if not sample <= LARGEST_SAMPLE:
            self.dropped += 1
            return
        self.kept += 1
        self.mean = decay * self.mean + (1 - decay) * sample

    def value(self, decay: float, *, corrected: bool) -> float:
        """Return AIWQ; 0 before the first kept sample."""
        if not self.kept:
            return 0.0
        return self.mean / (1 - decay**self.kept) if corrected else self.mean


class InstabilityMeter:
    """Samples AIWQ of every freezable layer in the training steps inside a `with` block."""

    def __init__(self, model: nn.Module, *, decay: float, corrected: bool, stride: int = 1, micro_batches: int = 1) -> None:
        """Prepare a meter without samples.

        Args:
            model: a converted model, or its twin that trains.
            decay: of the running mean, per step.
            corrected: whether the mean is divided by its weight.
            stride: from one image of a batch that samples are taken over to the next.
            micro_batches: forward passes of a step.
        """
        self.decay = decay
        self.corrected = corrected
        self.stride = stride
        self.micro_batches = micro_batches
        self._model = model
        self._layers = freezable_layers(model)
        self._running = {name: RunningInstability() for name in self._layers}
        self._previous: dict[str, Tensor] = {}
        self._present: dict[str, Tensor] = {}
        self._passes = 0
        self._parts: dict[str, list[Tensor]] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        """Start sampling."""
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(partial(self._look, name)))
        self._handles.append(self._model.register_forward_hook(self._pass_done))
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop sampling."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def _look(self, name: str, layer: QuantConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        """Take the moments of a layer's outputs in this forward pass, by its present weight and the one before."""
        if not layer.training:
            return
        # What a forward pass in training moves (running ranges), this second look leaves.
        layer.eval()
        # What an update moves is lost in 16 bits.
        with torch.autocast(output.device.type, enabled=False):
            weight = layer.quantized_weight()
            if name in self._previous:
                previous = self._previous[name]
                values = layer.quantized_input(self._thinned(inputs[0])).to(previous.dtype)
                same = output.dtype == previous.dtype
                output_new = self._thinned(output) if same else layer.apply_weight(values, weight)
                self._parts.setdefault(name, []).append(moments(output_new, layer.apply_weight(values, previous)))
            self._present[name] = weight.clone() if weight is layer.weight else weight
        layer.train()

    def _thinned(self, images: Tensor) -> Tensor:
        """Return every `stride`-th image, in memory one after the other: what skips over memory takes slow paths."""
        return images if self.stride == 1 else images[:: self.stride].clone()

    def _pass_done(self, *_: object) -> None:
        """At the end of a step's last forward pass, form the samples over its whole batch."""
        if not self._present:
            return
        self._passes += 1
        if self._passes % self.micro_batches:
            return
        if self._parts:
            channels = [parts[0].shape[1] for parts in self._parts.values()]
            parts = torch.stack([torch.cat(layers, dim=1) for layers in zip(*self._parts.values(), strict=True)])
            whole = pooled(collective.gathered(parts).flatten(0, 1))
            for name, sample in zip(self._parts, samples(whole, channels), strict=True):
                self._running[name].add(sample, self.decay)
        self._previous, self._present, self._parts = self._present, {}, {}

    def values(self) -> dict[str, float]:
        """Return AIWQ per layer, in the model's order."""
        return {name: running.value(self.decay, corrected=self.corrected) for name, running in self._running.items()}

    def dropped_shares(self) -> dict[str, float]:
        """Return the share of samples that were dropped, per layer."""
        return {name: running.dropped / max(running.kept + running.dropped, 1) for name, running in self._running.items()}

    def ranking(self) -> list[str]:
        """Return the layers, the most unstable first; ties by name.

        A layer whose every sample was dropped moved beyond what the metric measures: it comes first.
        """
        values = self.values()

        def key(name: str) -> tuple[bool, float, str]:
            running = self._running[name]
            return (not (running.dropped and not running.kept), -values[name], name)

        return sorted(values, key=key)

    def state(self) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
        """Return the previous quantized weights, and (mean, kept, dropped) per layer, for a checkpoint."""
        return dict(self._previous), {name: [r.mean, r.kept, r.dropped] for name, r in self._running.items()}

    def load_state(self, previous: Mapping[str, Tensor], running: Mapping[str, list[float]]) -> None:
        """Continue from a checkpoint."""
        # In the weight's own memory layout, which the convolution's last bits may depend on.
        self._previous = {name: torch.empty_like(self._layers[name].weight).copy_(value) for name, value in previous.items()}
        self._running = {
            name: RunningInstability(mean, int(kept), int(dropped)) for name, (mean, kept, dropped) in running.items()
        }
