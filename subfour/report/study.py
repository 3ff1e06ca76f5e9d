"""A study as its runs tell it: each row with its finished runs, and what became of the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from subfour.ops import widths_name
from subfour.profit.alike import data_name, differ_only_in
from subfour.profit.config import RunConfig
from subfour.report.record import METHODS, RunRecord


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One row: runs that differ in their seed only."""

    name: str
    config: RunConfig
    """Of its first run."""
    numbers: Mapping[str, Any]
    """Mean and spread, as `compare_rows` counts them."""
    lost: Mapping[int, float]
    """Seed -> points of top-1 below float."""
    records: Mapping[int, RunRecord]
    """Seed -> finished run."""
    diverged: Mapping[int, str]
    """Seed -> why its training stopped for good."""
    missing: Sequence[int]
    """Seeds whose run has not ended."""
    command: str

    @property
    def network(self) -> str:
        """The network without its library."""
        return self.config.model.partition("/")[2]

    @property
    def widths(self) -> str:
        """The last widths, as planned."""
        return widths_name(self.config.weight_bits[-1], self.config.activation_bits[-1])

    @property
    def method(self) -> str:
        """What it was trained with, in words."""
        return METHODS[self.config.method]

    @property
    def top1(self) -> dict[int, float]:
        """Seed -> top-1 at the last widths, averaged weights."""
        return {seed: result.top1 for seed, record in self.records.items() if (result := record.last_result)}

    @property
    def loss(self) -> dict[int, float]:
        """Seed -> validation loss at the last widths, averaged weights."""
        return {seed: result.loss for seed, record in self.records.items() if (result := record.last_result)}

    @property
    def state(self) -> str:
        """What became of its runs, in words; empty if all are finished."""
        words = [f"seed {seed} diverged" for seed in self.diverged] + [f"seed {seed} not run to its end" for seed in self.missing]
        return ", ".join(words)

    def differs_only_in(self, other: "StudyRow", *names: str) -> bool:
        """Return whether two rows are the same but for some fields of the configuration, and where they start.

        Args:
            other: the other row.
            names: of fields as the command line has them, such as "method" or "schedule.lr".
        """
        return differ_only_in(self.config, other.config, *names)


def by_network_and_widths(rows: Sequence[StudyRow]) -> Iterator[tuple[str, str, list[StudyRow]]]:
    """Yield the rows that can be compared, with network and widths; the widest first.

    Rows are of one network if its library, its size and its images are the same, too; where rows have several of one name, these
    stand beside it.
    """
    kinds: dict[str, set[str]] = {}
    for row in rows:
        kinds.setdefault(row.network, set()).add(_kind(row.config))

    def title(row: StudyRow) -> str:
        return row.network if len(kinds[row.network]) == 1 else f"{row.network} ({_kind(row.config)})"

    def place(row: StudyRow) -> tuple[str, int, int]:
        return title(row), -row.config.activation_bits[-1], -row.config.weight_bits[-1]

    for _, group in groupby(sorted(rows, key=place), key=place):
        members = list(group)
        yield title(members[0]), members[0].widths, members


def _kind(config: RunConfig) -> str:
    """Return what a network's name leaves open."""
    architecture = config.architecture
    strides = f", strides {' '.join(map(str, architecture.strides))}" if architecture.strides else ""
    return f"{config.model.partition('/')[0]}, width {architecture.width:g}{strides}, on {data_name(config.data)}"
