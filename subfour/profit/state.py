"""The state of a run: all that decides what comes next, as JSON and tensors of one checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from subfour.train.average import WeightAverage
from subfour.train.loop import EpochTotals


@dataclass(kw_only=True, slots=True)
class EpochUnderway(EpochTotals):
    """An epoch that goes on."""

    raw_losses: list[float] = field(default_factory=list)
    """Validation losses of the raw weights so far."""


@dataclass(kw_only=True, slots=True)
class RunState:
    """Where a run stands, between two epochs or between two steps of one."""

    config: str = ""
    """`RunConfig.digest` of the run."""
    phase: int = 0
    """Index of the phase that comes next or goes on."""
    next_epoch: int = 0
    """Epochs of that phase that are done."""
    underway: EpochUnderway = field(default_factory=EpochUnderway)
    """The epoch after those; without a step between two epochs."""
    freeze_order: list[str] = field(default_factory=list)
    """Layers in the order they freeze, by AIWQ under PROFIT; empty before the sampling phase ends."""
    instability: dict[str, float] = field(default_factory=dict)
    """AIWQ per layer, the most unstable first."""
    dropped: dict[str, float] = field(default_factory=dict)
    """Share of AIWQ samples dropped, per layer."""
    running: dict[str, list[float]] = field(default_factory=dict)
    """The meter's running means, inside the sampling phase."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One result per pair of widths."""
    snapping: dict[str, Any] | None = None
    """What the snap phase measured when it began; None before it."""
    start_top1: float = 0.0
    """Top-1 of the network that the run began with, where it begins quantized."""
    padding_top1: dict[str, float] = field(default_factory=dict)
    """Top-1 before negative padding, after it, and after the float phase."""
    unreadable: list[str] = field(default_factory=list)
    """Where images were left out because they cannot be read, sorted."""
    metrics_size: int = 0
    """Bytes of metrics.jsonl that belong to this state."""
    threads: int = 1
    """Threads of the sums so far; another number changes their order, and so the last bits."""
    workers: int = 1
    """Workers so far; another number changes the order of sums too."""
    loss_scale: dict[str, Any] = field(default_factory=dict)
    """`Precision.state`; empty but for fp16."""
    seconds: float = 0.0
    """Wall time of all sessions of the run."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; between two epochs nothing is under way."""
        data = asdict(self)
        if not self.underway.steps:
            data["underway"] = {}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunState":
        """Rebuild the state.

        Raises:
            ValueError: the data is of another version.
        """
        known = {entry.name for entry in fields(cls)}
        if set(data) != known:
            raise ValueError(
                f"checkpoint: its state does not fit this version of subfour (differs in {sorted(known ^ set(data))})"
            )
        return cls(**{**data, "underway": EpochUnderway(**data["underway"])})


def collect_tensors(
    model: nn.Module,
    average: WeightAverage,
    optimizer: SGD | None,
    previous: Mapping[str, Tensor],
    method: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint by name: model, average, momentum, the meter's previous weights, the method's own."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.state.items()}
    tensors |= {f"previous/{name}": value for name, value in previous.items()}
    tensors |= {f"method/{name}": value for name, value in method.items()}
    if optimizer is not None:
        for name, parameter in model.named_parameters():
            buffer = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
            if buffer is not None:
                tensors[f"momentum/{name}"] = buffer
    return tensors


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return one part of `collect_tensors`, without its prefix."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def restore_momentum(model: nn.Module, optimizer: SGD, momentum: Mapping[str, Tensor]) -> None:
    """Put momentum buffers back, in the memory layout of their parameters."""
    parameters = dict(model.named_parameters())
    for name, value in momentum.items():
        parameter = parameters[name]
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(value)
