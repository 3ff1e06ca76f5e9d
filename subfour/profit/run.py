"""A whole run from Python, begun or taken up again: what `subfour train` does, without its display.

    config = replace(load_recipe("digits"), weight_bits=(4,), activation_bits=(4,))
    result = train(config, Path("runs/mine"))

What was killed at any moment goes on with `resume(Path("runs/mine"))`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from subfour import collective
from subfour.environment import note_resumption
from subfour.profit.beginning import begin_run
from subfour.profit.config import RunConfig, config_in
from subfour.profit.continuation import continued
from subfour.profit.data_free import quantize_without_data
from subfour.profit.data_record import DATA_FILE, data_in
from subfour.profit.images_record import check_images
from subfour.profit.method import ProfitRun
from subfour.profit.observer import Observer
from subfour.profit.outside_teacher import check_teacher
from subfour.profit.progress import CHECKPOINTS
from subfour.profit.result import read_result, write_result
from subfour.profit.session import Session, prepare_session
from subfour.profit.state import RunState
from subfour.rundir import CONFIG_FILE, RESULT_FILE, RunDirectory
from subfour.train.allocator import keep_freed_memory
from subfour.train.checkpoint import CheckpointStore
from subfour.train.interruption import Interruption


def train(
    config: RunConfig,
    out: Path,
    *,
    observer: Observer | None = None,
    interruption: Interruption | None = None,
    collapse_guard: bool = True,
) -> dict[str, Any]:
    """Train what a configuration says, and return the content of result.json.

    From then on the process keeps the memory that it frees (`train/allocator.py`).

    Args:
        config: of the run, from a recipe; with `from_run`, what follows from that run is filled in.
        out: the run directory, which does not exist yet.
        observer: told of every phase, step and epoch; None: nobody is.
        interruption: when to write checkpoints between two steps; SIGTERM stops after one. None: after each epoch, and never.
        collapse_guard: whether a network at chance, or a range at zero, stops the run.

    Raises:
        ValueError: the configuration does not fit the data, the weights or this machine, or the folder holds a run already.
        CollapseError: the training can lead nowhere any more; the epochs before are kept.
    """
    if config.from_run is not None:
        config = continued(config, config.from_run)
    RunDirectory(out).require_free(config.to_json())
    directory, session, state = begin(config, lambda: out)
    with directory.locked():
        return _finish(session, directory, state, observer=observer, interruption=interruption, collapse_guard=collapse_guard)


def resume(
    run: Path, *, observer: Observer | None = None, interruption: Interruption | None = None, collapse_guard: bool = True
) -> dict[str, Any]:
    """Go on with a run where its newest checkpoint is, and return the content of result.json; of a finished one, at once.

    Args:
        run: the run directory.
        observer: see `train`.
        interruption: see `train`.
        collapse_guard: see `train`.

    Raises:
        ValueError: it is no run, its data are not what they were, or every checkpoint is damaged.
        CollapseError: see `train`.
    """
    directory = RunDirectory.open(run, writes=collective.is_main())
    with directory.locked():
        if (run / RESULT_FILE).exists():
            return read_result(directory)
        session, state = go_on(directory, config_in(directory))
        return _finish(session, directory, state, observer=observer, interruption=interruption, collapse_guard=collapse_guard)


def begin(config: RunConfig, out: Callable[[], Path]) -> tuple[RunDirectory, Session, RunState | None]:
    """Prepare a run and make its directory, last of all, so that a start that fails leaves nothing behind.

    Args:
        config: of the run.
        out: chooses the folder; asked in the main worker alone.

    Returns:
        The directory, what is to be trained, and the last state of a run that trains nothing; None of others.

    Raises:
        ValueError: see `train`.
    """
    with collective.main_first():
        session = prepare_session(config)
    state = _without_training(session)
    place = Path(collective.from_main(str(out()) if collective.is_main() else ""))
    with collective.main_first():
        directory = begin_run(session, place) if collective.is_main() else RunDirectory.open(place, writes=False)
    return directory, session, state


def go_on(directory: RunDirectory, config: RunConfig) -> tuple[Session, RunState | None]:
    """Prepare what a run goes on with, and check that its data are what they were when it began.

    Args:
        directory: of the run.
        config: its own, but for what decides no weight.

    Returns:
        What is to be trained, and the last state of a run that trains nothing; None of others.

    Raises:
        ValueError: they are not, or something does not fit this machine.
    """
    with collective.main_first():
        session = _prepared_again(directory, config)
    return session, _without_training(session)


def _prepared_again(directory: RunDirectory, config: RunConfig) -> Session:
    there, record = directory.read_json(DATA_FILE), data_in(directory)
    # Without weights from elsewhere the normalisation comes from the images, and tells whether they are the same.
    # An image that has gone bad since then, and is left out now, changes it.
    elsewhere = config.from_run is not None or config.weights != "none" or config.loading.unreadable == "skip"
    begun = CheckpointStore(directory.path / CHECKPOINTS).has_any()
    session = prepare_session(config, begun=record if elsewhere and begun else None)
    if session.data != record:
        raise ValueError(f"data: {session.config.data} is not what it was when {directory.path} began; bring it back")
    check_images(session, there, str(directory.path))
    check_teacher(session, there, str(directory.path))
    directory.write_json(CONFIG_FILE, config.to_json())
    note_resumption(directory)
    return session


def _without_training(session: Session) -> RunState | None:
    return quantize_without_data(session) if session.config.method == "data-free" else None


def _finish(
    session: Session,
    directory: RunDirectory,
    state: RunState | None,
    *,
    observer: Observer | None,
    interruption: Interruption | None,
    collapse_guard: bool,
) -> dict[str, Any]:
    """Train what is left, if anything trains, and write the result."""
    keep_freed_memory()
    with interruption.listening() if interruption else nullcontext():
        if state is None:
            run = ProfitRun(session, directory, observer, interruption=interruption, collapse_guard=collapse_guard)
            state = run.train()
        return write_result(session, directory, state)
