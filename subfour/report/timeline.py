"""The phases of a run, drawn to scale and as a table: done, in progress, or to come."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from subfour.profit.phases import Phase
from subfour.report.record import RunRecord
from subfour.report.template import shown

LEGEND = (
    ("float", "float", "no quantization"),
    ("stabilize", "s", "stabilize: batch norm and ranges"),
    ("finetune", "f", "finetune: everything"),
    ("sample", "a", "sample AIWQ, everything trains"),
    ("frozen", "1/3", "finetune, that share of the layers frozen"),
    ("snap", "d", "snap: the constants of deployment"),
)

PHASE_COLUMNS = ("phase", "kind", "widths", "epochs", "done", "frozen", "layers frozen", "top-1 %")
"""Of `phase_row`."""


def timeline(record: RunRecord) -> list[Mapping[str, Any]]:
    """Return the blocks of phases at one pair of widths, each with its phases."""
    blocks: list[Mapping[str, Any]] = []
    numbered = enumerate(record.phases)
    for widths, group in groupby(numbered, key=lambda item: item[1].widths_name):
        phases = list(group)
        blocks.append(
            {
                "widths": widths,
                "epochs": sum(phase.epochs for _, phase in phases),
                "phases": [_timeline_entry(record, index, phase) for index, phase in phases],
            }
        )
    return blocks


def _timeline_entry(record: RunRecord, index: int, phase: Phase) -> Mapping[str, Any]:
    state, done = _phase_state(record, index)
    letters = {"float": "float", "stabilize": "s", "sample": "a", "finetune": "f", "snap": "d", "data-free": "0"}
    frozen = f", {phase.frozen} of the layers frozen" if phase.frozen else ""
    progress = {"done": "done", "now": f"{done} done", "todo": "to come"}[state]
    return {
        "look": "frozen" if phase.frozen else phase.kind,
        "letter": str(phase.frozen) if phase.frozen else letters[phase.kind],
        "epochs": phase.epochs,
        "state": state,
        "words": f"phase {index + 1}: {phase.kind}{frozen}, {phase.epochs} epochs, {progress}",
    }


def phase_row(record: RunRecord, index: int) -> list[str]:
    """Return the line of one phase."""
    phase = record.phases[index]
    epochs = [epoch for epoch in record.metrics if epoch["phase"] == index]
    last = epochs[-1] if epochs else None
    return [
        str(index + 1),
        phase.kind,
        phase.widths,
        str(phase.epochs),
        str(len(epochs)),
        str(phase.frozen) if phase.frozen else "",
        "" if last is None or not last["frozen_layers"] else str(last["frozen_layers"]),
        "" if last is None else shown(last["averaged"]["top1"]),
    ]


def _phase_state(record: RunRecord, index: int) -> tuple[str, int]:
    """Return whether a phase is done, in progress or to come, and how many of its epochs are done."""
    done = sum(epoch["phase"] == index for epoch in record.metrics)
    if done == record.phases[index].epochs:
        return "done", done
    return ("now" if done else "todo"), done
