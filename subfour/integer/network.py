"""A converted network computed by its snapped program: trains through the rounding, evaluates as every executor will."""

import copy
import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from subfour.convert.calibrate import calibrate_weights, set_bits
from subfour.convert.graph import trace
from subfour.data.preprocess import Preprocessing
from subfour.integer.build import build_program
from subfour.integer.execute import execute
from subfour.integer.grids import LARGEST_MOVE
from subfour.integer.measure import Snapping, measure
from subfour.integer.program import Layer, Program
from subfour.integer.settle import settle, unclear_channels
from subfour.integer.snap import coarse_layers, snap
from subfour.layers import quant_layers

logger = logging.getLogger(__name__)


class SnappedNetwork(nn.Module):
    """Normalised images [N, 3, H, W] -> logits [N, classes], computed in codes.

    Batch norm is folded, so its statistics stand still; scale, shift, biases and ranges train. Weights could, but the
    snap phase lets them stand still too.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, snapping: Snapping) -> None:
        """Wrap a network without changing it.

        Args:
            model: converted and calibrated, at its final widths.
            preprocessing: of its images.
            snapping: from `measure`.
        """
        super().__init__()
        self.model, self.preprocessing, self.snapping = model, preprocessing, snapping
        self._graph = trace(model)
        """Tracing takes longer than all constants; parameters and widths are no part of it."""
        self._final: Program | None = None

    def train(self, mode: bool = True) -> "SnappedNetwork":
        """Set the mode; what was settled for an evaluation is forgotten, because the parameters may change."""
        self._final = None
        super().train(mode)
        return self

    def final_program(self) -> Program:
        """Return the program with its final constants; see `settle`."""
        if self._final is None:
            self._final = snapped_program(self.model, self.preprocessing, self.snapping)
        return self._final

    def _training_program(self) -> Program:
        return snap(build_program(self.model, self.preprocessing, graph=self._graph), self.snapping)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: differentiable in training mode, with the final constants in evaluation mode."""
        program = self._training_program() if self.training else self.final_program()
        return execute(program, pixels_of(images, self.preprocessing))[program.output]


@torch.no_grad()
def snapped_program(model: nn.Module, preprocessing: Preprocessing, snapping: Snapping) -> Program:
    """Return the settled program of a converted network, to be executed or exported.

    Raises:
        ValueError: the network has something that cannot be snapped; the message names it.
    """
    return settle(snap(build_program(model, preprocessing, dtype=torch.float64), snapping), snapping)


@torch.no_grad()
def measure_snapping(model: nn.Module, preprocessing: Preprocessing, batches: Iterable[Tensor]) -> Snapping:
    """Return what to snap a network with, and warn of what snapping would take from it.

    Args:
        model: converted, at its final widths, in evaluation mode.
        preprocessing: of its images.
        batches: uint8 pixels [N, 3, H, W].
    """
    program = build_program(model, preprocessing, dtype=torch.float64)
    snapping = measure(program, batches)
    snapped = snap(program, snapping)
    if coarse := coarse_layers(snapped, snapping):
        logger.warning(
            "snap: in %d layers, first in %s, rounding multipliers moves values by 1/%d of their range or more, because codes "
            "are too wide; use fewer bits, or leave snapping out with --no-snap",
            len(coarse),
            coarse[0],
            round(1 / LARGEST_MOVE),
        )
    if unclear := unclear_channels(settle(snapped, snapping), snapping):
        logger.warning(
            "snap: %d channels behind h-swish, first in %s, cannot be kept clear of rounding ties, so that executors may give "
            "other codes there; use fewer bits, or leave snapping out with --no-snap",
            sum(unclear.values()),
            next(iter(unclear)),
        )
    return snapping


def pixels_of(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return the uint8 pixels [N, 3, H, W] that normalised images were made from."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return images.mul(std).add_(mean).mul_(255).round_().to(torch.uint8)


@torch.no_grad()
def trial_program(model: nn.Module, preprocessing: Preprocessing, *, weight_bits: int, activation_bits: int) -> Program:
    """Return the program of a converted network with ranges that mean nothing: whether it has one is known before it trains.

    Args:
        model: converted; it is not changed.
        preprocessing: of its images.
        weight_bits: that it will have.
        activation_bits: likewise.

    Raises:
        ValueError: it has none; the message names the layer or operation.
    """
    trial = copy.deepcopy(model)
    set_bits(trial, weight_bits, activation_bits)
    calibrate_weights(trial)
    for layer in quant_layers(trial).values():
        # What a program is made of does not depend on the ranges, but it cannot be made without any.
        layer.activation_quantizer.initialize(torch.linspace(-1, 1, 100))
    program = build_program(trial, preprocessing)
    check_head(program)
    return program


def check_head(program: Program) -> None:
    """Raise ValueError unless a program ends with logits [N, classes]: those of a linear layer."""
    last = program.operations[-1]
    if not (isinstance(last, Layer) and last.linear):
        raise ValueError(f"{last.name}: the network ends with it, and only one that ends with a linear layer can be exported")
