"""What snapping must know of a network's values: measured once on a few batches, then part of the run."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from subfour.integer.execute import accumulate, compute
from subfour.integer.program import IMAGE, Layer, Pool, Program
from subfour.integer.structure import Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapping:
    """What snapping must know of a network's values; measured once, then part of the run."""

    accumulators: Mapping[str, int]
    """Largest magnitude of a layer's accumulators, by layer."""
    largest: Mapping[str, float]
    """Largest magnitude of each value that is coded or lies on a skip path, by name."""
    positions: Mapping[str, int]
    """Height times width of what is pooled, by pool."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Snapping":
        """Rebuild it."""
        return cls(**data)


@torch.no_grad()
def measure(program: Program, batches: Iterable[Tensor]) -> Snapping:
    """Return what snapping must know, from a few batches of images.

    Args:
        program: not snapped.
        batches: uint8 pixels [N, 3, H, W].
    """
    structure = Structure(program)
    watched = structure.coded | structure.skips
    accumulators: dict[str, int] = {}
    largest: dict[str, float] = {}
    positions: dict[str, int] = {}
    for pixels in batches:
        values = {IMAGE: pixels}
        for operation in program.operations:
            inputs = [values[name] for name in operation.inputs]
            if isinstance(operation, Layer):
                extreme = int(accumulate(operation, *inputs).abs().max())
                accumulators[operation.name] = max(accumulators.get(operation.name, 1), extreme)
            if isinstance(operation, Pool):
                positions[operation.name] = inputs[0].shape[2] * inputs[0].shape[3]
            value = compute(operation, inputs)
            if operation.name in watched:
                largest[operation.name] = max(largest.get(operation.name, 0.0), float(value.abs().max()))
            values[operation.name] = value
    return Snapping(accumulators=accumulators, largest=largest, positions=positions)
