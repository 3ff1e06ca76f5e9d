from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from subfour.profit.config import RunConfig
from subfour.profit.method import ProfitRun
from tests.profit.tiny_run import FIRST_FROZEN, SAMPLING, SNAP, Recorder, tiny_config, train, write_images


@dataclass(frozen=True)
class FinishedRun:
    """The tiny run, trained once for all tests; nobody writes into its folders."""

    folder: Path
    config: RunConfig
    result: dict[str, Any]
    recorder: Recorder
    copies: dict[tuple[int, int], Path]
    """(phase, epoch) -> the folder as it was after that epoch."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Train the tiny run."""
    root = tmp_path_factory.mktemp("finished")
    write_images(root / "images")
    config = tiny_config(root / "images")
    moments = [(SAMPLING, 0), (SAMPLING, 1), (FIRST_FROZEN, 0), (SNAP - 1, 0), (SNAP, 0)]
    copies = {(phase, epoch): root / f"copy-{phase}-{epoch}" for phase, epoch in moments}
    recorders: list[Recorder] = []

    def watch(run: ProfitRun) -> Recorder:
        recorders.append(Recorder(run, copies))
        return recorders[0]

    result = train(root / "run", config, watch)
    return FinishedRun(root / "run", config, result, recorders[0], copies)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Return the tiny run's configuration, with images of its own."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "digits", per_class=5)
    return tiny_config(folder / "digits")
