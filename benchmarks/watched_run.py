"""A training in a process of its own, which says what it is doing, so that whoever kills it knows what the kill hit.

The process is forked from one that has imported everything and computed nothing, so it starts in a second where the command needs
five. From then on it is the command: `subfour train`, then `subfour export`. What it is doing stands in shared memory, which
outlives it; some functions are wrapped to write it there, and nothing else about them changes.
"""

import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sklearn.datasets  # noqa: F401 (so that no fork has to)

import subfour.cli.export  # noqa: F401
from subfour.cli import train
from subfour.cli.main import main
from subfour.cli.observers import Observers
from subfour.profit.examination import Examiner
from subfour.profit.method import ProfitRun
from subfour.profit.phases import Phase
from subfour.train.checkpoint import CheckpointStore

FORK = multiprocessing.get_context("fork")

STAGES = ("start", "float", "stabilize", "finetune", "sample", "finetune, frozen", "re-estimation", "snap", "results", "export")
"""What a run does, in the order in which it first comes; training by kind of phase."""

BETWEEN = ("phase change", "evaluation", "checkpoint")
"""What comes again and again."""

MOMENTS = (*STAGES, *BETWEEN)

EXPORTED_FILE = "model.onnx"

MARKED: list[tuple[Any, str, str]] = [
    (ProfitRun, "train", "phase change"),
    (Examiner, "accuracy", "evaluation"),
    (Examiner, "reestimated", "re-estimation"),
    (CheckpointStore, "save", "checkpoint"),
    (train, "write_result", "results"),
]
"""Owner, function, and what is done while it runs."""


class WatchedRun:
    """A run that begins, or goes on, at once."""

    def __init__(self, run: Path, options: Sequence[str]) -> None:
        """Start the process.

        Args:
            run: its directory; one that is a run already is resumed.
            options: recipe and options of one that begins.
        """
        self._moment = FORK.RawValue("i", 0)
        self._process = FORK.Process(target=self._work, args=(run, options))
        self._process.start()

    @property
    def moment(self) -> str:
        """What it is doing, or was when it ended."""
        return MOMENTS[self._moment.value]

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def kill(self) -> int:
        """Send SIGKILL, and return the exit code: -9, or another where the process was faster."""
        self._process.kill()
        return self.ended()

    def ended(self) -> int:
        """Wait for its end, and return the exit code."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def wait_for(self, moment: str) -> None:
        """Wait until it does something, or has ended."""
        while self.moment != moment and self.runs:
            time.sleep(0.0005)

    def _work(self, run: Path, options: Sequence[str]) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        for owner, name, moment in MARKED:
            setattr(owner, name, self._marking(getattr(owner, name), moment))
        Observers.phase_begins = self._marking_phase(Observers.phase_begins)  # type: ignore[method-assign]
        Observers.epoch_done = self._marking_end(Observers.epoch_done)  # type: ignore[method-assign]
        main(["train", *(["--resume", str(run)] if (run / "config.json").exists() else [*options, "--out", str(run)])])
        self._does("export")
        main(["export", str(run), "--out", str(run / EXPORTED_FILE)])

    def _does(self, moment: str) -> None:
        self._moment.value = MOMENTS.index(moment)

    def _marking(self, function: Callable[..., Any], moment: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def marked(*arguments: Any, **named: Any) -> Any:
            before = self.moment
            self._does(moment)
            result = function(*arguments, **named)
            self._does(before)
            return result

        return marked

    def _marking_phase(self, function: Callable[..., None]) -> Callable[..., None]:
        def phase_begins(observers: Observers, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
            function(observers, index, phase, frozen, next_epoch)
            self._does(f"{phase.kind}, frozen" if frozen and phase.kind == "finetune" else phase.kind)

        return phase_begins

    def _marking_end(self, function: Callable[..., None]) -> Callable[..., None]:
        def epoch_done(observers: Observers, record: dict[str, Any]) -> None:
            function(observers, record)
            if record["epoch"] + 1 == record["epochs"]:
                self._does("phase change")

        return epoch_done
