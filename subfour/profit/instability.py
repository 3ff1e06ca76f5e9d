"""AIWQ, activation instability induced by weight quantization: how much a weight update moves a layer's output.

Source: PROFIT, arXiv:2008.04693; the authors' train_ts.py. At step t, on the same input x,

    o_new = conv(x, Q(w_t))      o_old = conv(x, Q(w_{t-1}))        with the layer's own padding
    per output channel, a Gaussian (m, s) over batch and positions of both:
    KL = log(s_old / s_new) + (s_new^2 + (m_new - m_old)^2) / (2 s_old^2) - 1/2
    sample = mean of KL over channels with both s > 0;  AIWQ = running mean of the samples

Small print: s is the unbiased estimate (torch.std). A sample above 1 is dropped; with no live channel there is none (a
layer whose output is constant ranks last, because frozen it could never come back to life). The running mean is divided by
the weight of the samples KEPT, so that a layer whose samples are dropped does not rank as stable (`corrected=False`: the
authors' mean, which starts at 0). Both outputs come from the layer's own `apply_weight`, so unchanged weights give
exactly 0 for every kind of layer; the authors' hook pads with 0 where the layer pads with -3/8. On codes (`engine/`) the
two products of scales are rounded apart, and unchanged weights give 0 to the last bits. A batch that several workers share, or
that comes in parts, gives one sample: the moments of the parts make those of the whole, then the KL is formed once.

A sample over the first images of a batch only costs as much less as they are fewer, and asks every update the same question.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from subfour import collective
from subfour.layers import QuantConv2d, freezable_layers

LARGEST_SAMPLE = 1.0
"""Samples above this are dropped (authors)."""


def instability(output_new: Tensor, output_old: Tensor) -> float | None:
    """Return one AIWQ sample: the mean over channels of KL(new || old), or None where no channel is alive.

    Args:
        output_new: [N, C, H, W], from the present weights.
        output_old: the same shape, from the weights before the last step.
    """
    return _divergence(_moments(output_new, output_old))


def _moments(output_new: Tensor, output_old: Tensor) -> Tensor:
    """Return the number of values, then mean and std of both outputs, of each channel: [5, C] in float64."""
    std_new, mean_new = _std_mean(output_new)
    std_old, mean_old = _std_mean(output_old)
    count = torch.full_like(mean_new, output_new.numel() // len(mean_new), dtype=torch.float64)
    return torch.stack([count, *(values.double() for values in (mean_new, std_new, mean_old, std_old))])


def _pooled(parts: Tensor) -> Tensor:
    """Return the moments of the whole from those of its parts, [parts, 5, C] -> [5, C]."""
    if len(parts) == 1:
        return parts[0]
    counts, *moments = parts.unbind(1)
    count = counts.sum(0)
    whole = [count]
    for means, stds in (moments[:2], moments[2:]):
        mean = (counts * means).sum(0) / count
        # A part with a single value has no std, and adds its distance from the mean only.
        squares = (counts - 1) * stds.nan_to_num().square() + counts * (means - mean).square()
        whole += [mean, (squares.sum(0) / (count - 1)).sqrt()]
    return torch.stack(whole)


def _divergence(moments: Tensor) -> float | None:
    """Return the mean KL over the channels alive, of `_moments`; None where there is none."""
    _, mean_new, s_new, mean_old, s_old = moments
    alive = (s_new > 0) & (s_old > 0)
    if not alive.any():
        return None
    s_new, s_old = s_new[alive], s_old[alive]
    shift = mean_new[alive] - mean_old[alive]
    divergence = torch.log(s_old / s_new) + (s_new.square() + shift.square()) / (2 * s_old.square()) - 0.5
    return float(divergence.mean())


def _std_mean(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unbiased deviation and the mean per channel, by the reduction of batch norm: torch.std_mean takes far longer."""
    mean, variance = torch.ops.aten.batch_norm_update_stats(outputs, None, None, 0.0)
    count = outputs.numel() / outputs.shape[1]
    return (variance * (count / (count - 1) if count > 1 else math.nan)).sqrt(), mean


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

    def __init__(
        self, model: nn.Module, *, decay: float, corrected: bool, images: int | None = None, micro_batches: int = 1
    ) -> None:
        """Prepare a meter without samples.

        Args:
            model: a converted model, or its twin that trains.
            decay: of the running mean, per step.
            corrected: whether the mean is divided by its weight.
            images: how many of a forward pass a sample is taken over, from the first; None: all.
            micro_batches: forward passes of a step.
        """
        self.decay = decay
        self.corrected = corrected
        self.images = images
        self.micro_batches = micro_batches
        self._layers = freezable_layers(model)
        self._running = {name: RunningInstability() for name in self._layers}
        self._previous: dict[str, Tensor] = {}
        self._passes = dict.fromkeys(self._layers, 0)
        self._parts: dict[str, list[Tensor]] = {name: [] for name in self._layers}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        """Start sampling."""
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop sampling."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str) -> Any:
        @torch.no_grad()
        def sample(layer: QuantConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            if not layer.training:
                return
            # What a forward pass in training moves (running ranges), this second look leaves.
            layer.eval()
            # What an update moves is lost in 16 bits.
            with torch.autocast(output.device.type, enabled=False):
                if name in self._previous:
                    previous = self._previous[name]
                    values = layer.quantized_input(inputs[0][: self.images]).to(previous.dtype)
                    # Both outputs must be computed alike, as another batch size or type has other last bits.
                    same = output.dtype == previous.dtype and len(output) == len(values)
                    output_new = output if same else layer.apply_weight(values, layer.quantized_weight())
                    self._parts[name].append(_moments(output_new, layer.apply_weight(values, previous)))
                self._passes[name] += 1
                if self._passes[name] % self.micro_batches == 0:
                    self._step_done(name)
            layer.train()

        return sample

    def _step_done(self, name: str) -> None:
        """Form the sample of a layer over the whole batch, and keep its weight for the next one."""
        if self._parts[name]:
            every = collective.gathered(torch.stack(self._parts[name])).flatten(0, 1)
            self._running[name].add(_divergence(_pooled(every)), self.decay)
            self._parts[name].clear()
        self._previous[name] = self._layers[name].quantized_weight().clone()

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
