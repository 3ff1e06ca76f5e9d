"""Iterative weight freezing: a weight whose code flips back and forth too often is frozen at the code it spends most time near.

Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML 2022, arXiv:2203.11086, Alg. 1. After
each update, for the code k of each weight,

    o = k has changed, and against the direction in which it changed last
    f = m * o + (1 - m) * f                        frequency of oscillation
    mean = m * k + (1 - m) * mean                  starts at k
    frozen from the step on where f > threshold    its code stays round(mean); the threshold falls by a cosine

A frozen weight is put at the centre of its bin after every update, so that the code stays though the range moves: also in
stabilize phases, where no other weight moves. The paper trains at one width; here the threshold falls over all phases at the
width where PROFIT would act. Threshold 0.1 to 0.011 and m = 0.001 are those of the authors' public command for MobileNet-v2 at
3 bits: m has to be a few times lower than the threshold.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from subfour.layers import quant_layers
from subfour.profit.sections import OscillationConfig
from subfour.profit.step_method import StepMethod

TRACKED = ("codes", "direction", "frequency", "mean", "frozen")
"""What is known of each weight."""


class IterativeFreezing(StepMethod):
    """Follows the code of every weight that is quantized."""

    def __init__(self, model: nn.Module, config: OscillationConfig) -> None:
        """Prepare; nothing is tracked until the first step in which it acts.

        Args:
            model: a converted model.
            config: momentum and threshold.
        """
        self._layers = quant_layers(model)
        self.config = config
        self.tracked: dict[str, dict[str, Tensor]] = {}

    @property
    def threshold(self) -> float:
        """Frequency above which a weight is frozen."""
        start, end = self.config.threshold_start, self.config.threshold_end
        return end + (start - end) * (1 + math.cos(math.pi * (self.share_done or 0.0))) / 2

    @torch.no_grad()
    def after_update(self) -> None:
        """Count, freeze, and put what is frozen back."""
        if self.share_done is None:
            return
        for name, layer in self._layers.items():
            weight, quantizer = layer.weight, layer.weight_quantizer
            codes = quantizer.codes(weight)
            if name not in self.tracked:
                nothing = torch.zeros_like(codes)
                known = (codes, nothing, nothing.clone(), codes.clone(), nothing.bool())
                self.tracked[name] = dict(zip(TRACKED, known, strict=True))
                continue
            tracked = self.tracked[name]
            if weight.requires_grad:
                self._count(tracked, codes)
            pinned = quantizer.bin_centres(tracked["mean"].round())
            weight.copy_(torch.where(tracked["frozen"], pinned, weight))

    def _count(self, tracked: dict[str, Tensor], codes: Tensor) -> None:
        """Take in the codes after an update; those of frozen weights are what they were."""
        momentum = self.config.momentum
        codes = torch.where(tracked["frozen"], tracked["codes"], codes)
        direction = (codes - tracked["codes"]).sign()
        oscillates = direction * tracked["direction"] < 0
        tracked["frequency"].lerp_(oscillates.to(codes.dtype), momentum)
        tracked["mean"].lerp_(codes, momentum)
        tracked["direction"] = torch.where(direction != 0, direction, tracked["direction"])
        tracked["frozen"] |= tracked["frequency"] > self.threshold
        tracked["codes"] = torch.where(tracked["frozen"], tracked["mean"].round(), codes)

    def state(self) -> dict[str, Tensor]:
        """Return what is known of the weights of every layer."""
        return {f"{layer}/{key}": value for layer, known in self.tracked.items() for key, value in known.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint."""
        for name, value in state.items():
            layer, _, key = name.rpartition("/")
            weight = self._layers[layer].weight
            self.tracked.setdefault(layer, {})[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
