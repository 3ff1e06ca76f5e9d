"""`subfour train RECIPE [options]`, `subfour train --from RUN [options]` and `subfour train --resume RUN`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.status import Status

from subfour import collective
from subfour.cli.arguments import Switch, parse
from subfour.cli.console import make_console, print_json
from subfour.cli.display import ProgressDisplay
from subfour.cli.launch import Launch, how_to_resume, start_workers
from subfour.cli.main import worker_number
from subfour.cli.observers import Observers
from subfour.cli.recipe_arguments import RecipeOptions, continuing, resolved, split_recipe, warn_of_what_is_not_read
from subfour.cli.summary import print_summary
from subfour.cli.tensorboard import TensorBoard
from subfour.data.images import Unreadable
from subfour.profit.config import Engine, RunConfig, config_in
from subfour.profit.method import ProfitRun
from subfour.profit.observer import Observer
from subfour.profit.phases import build_phases
from subfour.profit.result import read_result, write_result
from subfour.profit.run import begin, go_on
from subfour.profit.session import Session
from subfour.profit.state import RunState
from subfour.rundir import RESULT_FILE, RunDirectory, is_run
from subfour.train.allocator import keep_freed_memory
from subfour.train.interruption import Interruption, Terminated, WorkerLostError
from subfour.train.parallel import connected, noticing_lost_workers

USAGE = "subfour train RECIPE [options]\n       subfour train --from RUN [options]\n       subfour train --resume RUN"


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a training shows, and how."""

    tensorboard: Switch = False
    """Also write the metrics for TensorBoard, into RUN/tensorboard."""
    json: Switch = False
    """Print the result as JSON; progress goes to standard error."""

    def __post_init__(self) -> None:
        """Check that TensorBoard is there before anything trains for it."""
        if self.tensorboard and find_spec("tensorboard") is None:
            raise ValueError("tensorboard: it is not installed; install it with: pip install tensorboard")


@dataclass(frozen=True, kw_only=True)
class Safeguards:
    """What a training loses when it dies, and when it gives up: it changes no number, so no configuration holds it."""

    checkpoint_minutes: float = 10.0
    """Write a checkpoint in the middle of an epoch when the last one is as old as this; inf: after each epoch only."""
    ignore_collapse: Switch = False
    """Go on when accuracy has fallen to chance or a range to zero; what is not finite always stops a run."""

    def __post_init__(self) -> None:
        """Check the time before anything trains."""
        Interruption(self.checkpoint_minutes)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train; every field of the recipe is an option."""

    config: RecipeOptions
    out: Path | None = None
    """Run directory; by default a new one, runs/RECIPE or runs/RECIPE-2 and so on."""
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch()  # noqa: RUF009 (it is frozen)
    safeguards: Annotated[Safeguards, tyro.conf.arg(name="")] = Safeguards()
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What may be another when a run goes on, on another machine for one: it decides no weight."""

    data: str | None = None
    """Where the same images lie now."""
    device: str | None = None
    """Where to compute now; on another kind of device sums differ in their last bits."""
    loading_workers: Annotated[int | None, tyro.conf.arg(name="loading.workers")] = None
    """Processes that decode images."""
    unreadable: Annotated[Unreadable | None, tyro.conf.arg(name="loading.unreadable")] = None
    """What becomes of an image that cannot be read."""
    engine: Annotated[Engine | None, tyro.conf.arg(aliases=("--path",))] = None
    """How training steps are computed."""

    def applied(self, config: RunConfig) -> RunConfig:
        """Return the configuration of a run with what is another now."""
        loading = replace(
            config.loading,
            workers=config.loading.workers if self.loading_workers is None else self.loading_workers,
            unreadable=self.unreadable or config.loading.unreadable,
        )
        return replace(
            config,
            data=config.data if self.data is None else self.data,
            device=config.device if self.device is None else self.device,
            loading=loading,
            engine=self.engine or config.engine,
        )


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run; it keeps its own configuration."""

    resume: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    elsewhere: Annotated[Elsewhere, tyro.conf.arg(name="")] = Elsewhere()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch()  # noqa: RUF009 (it is frozen)
    safeguards: Annotated[Safeguards, tyro.conf.arg(name="")] = Safeguards()
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()


def run(arguments: Sequence[str]) -> None:
    """Train, with a progress display, and print the result."""
    keep_freed_memory()
    if any(word.partition("=")[0] == "--resume" for word in arguments):
        _resume(arguments)
    else:
        _begin(arguments)


def _begin(arguments: Sequence[str]) -> None:
    recipe, rest = split_recipe(arguments, USAGE)
    options = parse(TrainOptions, rest, prog=f"subfour train {recipe.recipe}", default=TrainOptions(config=recipe))
    config = resolved(options.config, recipe)
    if config.from_run is not None:
        config = continuing(config, recipe)
    build_phases(config)
    if options.launch.starts_others:
        if options.out is not None:
            RunDirectory(options.out).require_free(config.to_json())
        out = options.out or _new_directory(config.recipe)
        try:
            with _resumable(out):
                start_workers([*arguments, "--out", str(out)], options.launch.workers)
        finally:
            if options.out is None:
                with suppress(OSError):  # not empty: a run
                    out.rmdir()
        return
    with connected(config.device):
        if options.out is not None and collective.is_main():
            RunDirectory(options.out).require_free(config.to_json())
        with _preparing(options.output):
            directory, session, state = begin(config, lambda: options.out or _new_directory(config.recipe))
        if collective.is_main():
            warn_of_what_is_not_read(config, options.config, recipe, session.data.preprocessing.image_size)
        _train(directory, options, lambda: (session, state))


def _resume(arguments: Sequence[str]) -> None:
    try:
        options = parse(ResumeOptions, arguments, prog="subfour train")
    except ValueError as error:
        raise ValueError(f"{error} (a run that goes on keeps its own recipe and options)") from None
    directory = RunDirectory.open(options.resume)
    if (directory.path / RESULT_FILE).exists():
        if worker_number():  # the main one shows it
            return
        result, console = read_result(directory), _console(options.output)
        console.print(f"{directory.path} is finished; nothing is left to train.")
        _show(result, directory, console, options.output)
        return
    config = options.elsewhere.applied(config_in(directory))
    if options.launch.starts_others:
        with _resumable(directory.path):
            start_workers(arguments, options.launch.workers)
        return
    with connected(config.device):
        directory = _opened(directory.path)
        _train(directory, options, lambda: _going_on(directory, config, options.output))


def _opened(path: Path) -> RunDirectory:
    return RunDirectory.open(path, writes=collective.is_main())


def _console(output: Output) -> Console:
    """Return where progress goes: nowhere, for all workers but the main one."""
    return make_console(stderr=output.json, quiet=not collective.is_main())


def _preparing(output: Output) -> Status:
    """Say what goes on for the length of a `with` block."""
    return _console(output).status("reading images, building the network")


def _going_on(directory: RunDirectory, config: RunConfig, output: Output) -> tuple[Session, RunState | None]:
    """Prepare a run that goes on; see `_train`."""
    with _preparing(output):
        return go_on(directory, config)


@contextmanager
def _resumable(run: Path) -> Iterator[None]:
    """Tell who interrupts how to go on."""
    try:
        yield
    except (KeyboardInterrupt, Terminated, WorkerLostError) as stop:
        hint = [how_to_resume(run)] if is_run(run) else []
        raise type(stop)(*stop.args, *hint) from None


def _train(
    directory: RunDirectory, options: TrainOptions | ResumeOptions, prepare: Callable[[], tuple[Session, RunState | None]]
) -> None:
    """Train what is left of a run, and show its result.

    Args:
        directory: of the run.
        options: what to show, and when to save.
        prepare: what to train, and the last state of a run that trains nothing; called when no other process can write there.
    """
    interruption = Interruption(options.safeguards.checkpoint_minutes, collective.anyone)
    console = _console(options.output)
    with directory.locked(), _resumable(directory.path), noticing_lost_workers(), interruption.listening():
        session, state = prepare()
        state = state or _trained(session, directory, console, options, interruption)
        if not collective.is_main():
            return
        result = write_result(session, directory, state)
    _show(result, directory, console, options.output)


def _trained(
    session: Session,
    directory: RunDirectory,
    console: Console,
    options: TrainOptions | ResumeOptions,
    interruption: Interruption,
) -> RunState:
    """Train what is left of a run, and return its last state."""
    guard = not options.safeguards.ignore_collapse
    phases = build_phases(session.config)
    with ExitStack() as stack:
        display = ProgressDisplay(console, phases, session.training.steps_per_epoch)
        observers: list[Observer] = [display] if collective.is_main() else []
        if options.output.tensorboard and collective.is_main():
            observers.append(stack.enter_context(TensorBoard(directory.path / "tensorboard", phases)))
        with console.status("evaluating the starting weights"):
            training = ProfitRun(session, directory, Observers(observers), interruption=interruption, collapse_guard=guard)
        stack.enter_context(display)
        return training.train()


def _show(result: dict[str, Any], directory: RunDirectory, console: Console, output: Output) -> None:
    if output.json:
        print_json(result)
    else:
        print_summary(console, result, directory.path)


def _new_directory(recipe: str) -> Path:
    """Make the first of runs/RECIPE, runs/RECIPE-2, ... that does not exist."""
    name, number = Path("runs") / recipe, 1
    path = name
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = name.with_name(f"{name.name}-{number}")
        else:
            return path
