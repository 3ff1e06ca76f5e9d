"""How far a study is: what became of each run, and how long the others take."""

from collections.abc import Sequence
from typing import Any, Literal

from subfour.cli.study import Study, StudyRun, same_run
from subfour.profit.config import config_in
from subfour.profit.result import read_result
from subfour.rundir import JSON, RESULT_FILE, RunDirectory, is_run

State = Literal["new", "unfinished", "running", "finished", "diverged"]
"""Of a run; another process trains what is running."""

DIVERGED_FILE = "diverged.json"
"""In a run directory: why its training stopped for good."""


def state_of(entry: StudyRun) -> State:
    """Return what became of a run.

    Raises:
        ValueError: its directory holds another run.
    """
    if not is_run(entry.path):
        return "new"
    directory = RunDirectory.open(entry.path)
    if not same_run(entry.config, config_in(directory)):
        raise ValueError(
            f"study: {entry.path} holds a run with other options than row {entry.row} has now, or of other images than "
            f"{entry.config.data}; choose another --out"
        )
    if (entry.path / RESULT_FILE).exists():
        return "finished"
    if (entry.path / DIVERGED_FILE).exists():
        return "diverged"
    return "running" if directory.in_use else "unfinished"


def result_of(entry: StudyRun) -> dict[str, Any]:
    """Return the result.json of a finished run."""
    return read_result(RunDirectory.open(entry.path))


def divergence(reason: str) -> dict[str, JSON]:
    """Return the file of a run whose training stopped for good, by name."""
    return {DIVERGED_FILE: {"reason": reason}}


def divergence_of(entry: StudyRun) -> str:
    """Return why a run diverged."""
    reason: str = RunDirectory.open(entry.path).read_json(DIVERGED_FILE)["reason"]
    return reason


def start_diverged(entry: StudyRun, study: Study) -> bool:
    """Return whether the run that this one continues is one of the study and has diverged."""
    return any(entry.continues(run) and state_of(run) == "diverged" for run in study.runs)


def is_timed(study: Study, states: Sequence[State]) -> bool:
    """Return whether the time left is counted from runs of the study, and not from what its file says."""
    return bool(_timed(study, states))


def seconds_left(study: Study, states: Sequence[State]) -> list[float] | None:
    """Return how long each run still trains; None where nothing tells.

    An epoch takes as long as in the finished runs that are alike, where there are none as in all finished ones, and in a study
    without any as its file says.

    Args:
        study: the runs.
        states: of each.
    """
    timed = [(_kind(entry), result_of(entry)) for entry in _timed(study, states)]
    if not timed and study.seconds_per_epoch is None:
        return None
    left = []
    for entry, state in zip(study.runs, states, strict=True):
        done = len(RunDirectory.open(entry.path).metrics()) if state in ("unfinished", "running") else 0
        alike = [result for kind, result in timed if kind == _kind(entry)] or [result for _, result in timed]
        epochs = sum(result["epochs"] for result in alike)
        pace = sum(result["seconds"] for result in alike) / epochs if epochs else study.seconds_per_epoch or 0.0
        left.append(0.0 if state in ("finished", "diverged") else (entry.epochs - done) * pace)
    return left


def _timed(study: Study, states: Sequence[State]) -> list[StudyRun]:
    """Return the finished runs that have an epoch: without data there is none."""
    return [entry for entry, state in zip(study.runs, states, strict=True) if state == "finished" and entry.epochs]


def _kind(entry: StudyRun) -> tuple[object, ...]:
    """Return what decides how long an epoch of a run takes."""
    config, schedule = entry.config, entry.config.schedule
    return config.model, config.architecture, config.data, schedule.batch_size, schedule.max_steps
