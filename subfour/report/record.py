"""A run as its directory tells it, finished or not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from subfour.analysis.cost import Cost, network_cost
from subfour.analysis.workload import Workload
from subfour.environment import ENVIRONMENT_FILE
from subfour.ops import FLOAT_BITS, widths_name
from subfour.profit.beginning import CHANCE
from subfour.profit.config import RunConfig, config_in
from subfour.profit.data_record import DATA_FILE, DataRecord, data_in
from subfour.profit.method import FAILURE_FILE
from subfour.profit.phases import Phase, build_phases, ends_widths
from subfour.profit.result import SENSITIVITY_FILE, read_result, read_sensitivity
from subfour.profit.subject import run_workload
from subfour.rundir import RESULT_FILE, RunDirectory

Status = Literal["finished", "collapsed", "unfinished", "not begun"]

METHODS = {
    "profit": "PROFIT",
    "none": "nothing frozen",
    "dampening": "dampening",
    "iterative-freezing": "iterative freezing",
    "random-order": "freezing in random order",
    "reversed-order": "freezing in reversed order",
    "data-free": "no data",
}
"""What a run was trained with, in words."""


@dataclass(frozen=True, kw_only=True)
class WidthResult:
    """What a run reached at one pair of widths, with averaged weights."""

    weight_bits: int
    activation_bits: int
    top1: float
    top5: float
    loss: float
    raw_top1: float
    snapped: bool
    """Whether it was reached with the constants of deployment."""

    @property
    def is_float(self) -> bool:
        """Whether nothing was quantized."""
        return self.weight_bits == self.activation_bits == FLOAT_BITS

    @property
    def name(self) -> str:
        """The widths by name."""
        return widths_name(self.weight_bits, self.activation_bits, snapped=self.snapped)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything in a run directory that the report reads."""

    path: Path
    name: str
    """Of its folder, and of those above it where runs that are told together share that; see `named_apart`."""
    config: RunConfig
    phases: list[Phase]
    metrics: list[dict[str, Any]]
    """One record per epoch."""
    environment: dict[str, Any]
    data: DataRecord | None
    result: dict[str, Any] | None
    sensitivity: list[dict[str, Any]]
    """Layers by AIWQ; empty before sampling ends."""
    failure: dict[str, Any] | None
    chance: float | None = None
    """Top-1 of guessing, in percent; None where the run does not say."""

    @property
    def method(self) -> str:
        """What it was trained with, in words."""
        return METHODS[self.config.method]

    @property
    def status(self) -> Status:
        """How far the run came."""
        if self.result is not None:
            return "finished"
        if self.failure is not None:
            return "collapsed"
        return "unfinished" if self.metrics else "not begun"

    @property
    def epochs(self) -> int:
        """Epochs of the whole plan."""
        return sum(phase.epochs for phase in self.phases)

    @cached_property
    def widths(self) -> list[WidthResult]:
        """The result at each pair of widths whose last epoch is done, in order."""
        if self.result is not None:
            return [_width_result(row) for row in self.result["rows"]]
        ends = {(index, phase.epochs - 1) for index, phase in enumerate(self.phases) if ends_widths(self.phases, index)}
        return [_width_result(record) for record in self.metrics if (record["phase"], record["epoch"]) in ends]

    @property
    def float_result(self) -> WidthResult | None:
        """The end of the float phase."""
        return next((row for row in self.widths if row.is_float), None)

    @property
    def last_result(self) -> WidthResult | None:
        """The result at the narrowest widths reached."""
        return self.widths[-1] if self.widths else None

    @cached_property
    def workload(self) -> Workload | None:
        """What the network computes; None where the run does not know its data."""
        return None if self.data is None else run_workload(self.config, self.data)

    @property
    def fixed_ranges(self) -> set[str]:
        """Names of the layers whose input range is not learned: those fed by the image."""
        return set() if self.workload is None else {layer.name for layer in self.workload.layers if layer.kind == "stem"}

    def cost(self, weight_bits: int, activation_bits: int) -> Cost | None:
        """Return the cost at a pair of widths."""
        if self.workload is None:
            return None
        return network_cost(self.workload, weight_bits=weight_bits, activation_bits=activation_bits)


def read_record(path: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        ValueError: it is none, or a file in it is damaged.
    """
    run = RunDirectory.open(path)

    def optional(name: str) -> Any:
        return run.read_json(name) if (path / name).exists() else None

    config = config_in(run)
    data = optional(DATA_FILE)
    return RunRecord(
        path=path,
        name=path.resolve().name,
        config=config,
        phases=build_phases(config),
        metrics=[record for record in run.metrics() if "collapse" not in record],  # failure.json tells of that epoch
        environment=optional(ENVIRONMENT_FILE) or {},
        data=None if data is None else data_in(run),
        result=read_result(run) if (path / RESULT_FILE).exists() else None,
        sensitivity=read_sensitivity(run) if (path / SENSITIVITY_FILE).exists() else [],
        failure=optional(FAILURE_FILE),
        chance=None if data is None else data.get(CHANCE, 100 / len(data["classes"])),
    )


def named_apart(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records with as many folders in each name as tell them all apart, as runs of a study need: ROW/seed-0."""
    places = [record.path.resolve().parts for record in records]
    depth = 1
    while depth < max(map(len, places)) and len({place[-depth:] for place in places}) < len({*places}):
        depth += 1
    return [replace(record, name="/".join(place[-depth:])) for record, place in zip(records, places, strict=True)]


def _width_result(row: dict[str, Any]) -> WidthResult:
    averaged = row["averaged"]
    return WidthResult(
        weight_bits=row["weight_bits"],
        activation_bits=row["activation_bits"],
        top1=averaged["top1"],
        top5=averaged["top5"],
        loss=averaged["loss"],
        raw_top1=row["raw"]["top1"],
        snapped=row.get("snapped", row.get("kind") == "snap"),
    )
