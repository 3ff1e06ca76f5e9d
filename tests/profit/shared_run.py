"""A tiny run by several workers, each in a process of its own."""

import math
from pathlib import Path
from typing import Any

from subfour import collective
from subfour.environment import environment
from subfour.profit.config import RunConfig
from subfour.profit.data_record import DATA_FILE
from subfour.profit.method import ProfitRun
from subfour.profit.result import write_result
from subfour.profit.session import prepare_session
from subfour.rundir import RunDirectory
from subfour.train.interruption import Interruption, Terminated
from tests.profit.tiny_run import Observer


def share(folder: Path, config: RunConfig, watchers: dict[int, Observer], checkpoint_minutes: float = math.inf) -> str:
    """Begin a run, or go on with it, as one of its workers; return how it ended.

    Args:
        folder: of the run.
        config: of a run that begins.
        watchers: rank -> who watches that worker.
        checkpoint_minutes: of `Interruption`.
    """
    with collective.main_first():
        if collective.is_main() and not (folder / "config.json").exists():
            begun = RunDirectory.create(folder, config.to_json())
            begun.write_json("environment.json", environment())
    directory = RunDirectory.open(folder, writes=collective.is_main())
    session = prepare_session(config)
    directory.write_json(DATA_FILE, session.data.to_json())
    interruption = Interruption(checkpoint_minutes, collective.anyone)
    watcher: Any = watchers.get(collective.rank(), Observer())
    try:
        with interruption.listening():
            state = ProfitRun(session, directory, watcher, interruption=interruption).train()
    except Terminated:
        return "terminated"
    if collective.is_main():
        write_result(session, directory, state)
    return "finished"
