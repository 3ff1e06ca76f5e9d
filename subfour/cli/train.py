"""`subfour train RECIPE [options]` and `subfour train --resume RUN`."""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from subfour.cli.arguments import Switch, parse
from subfour.cli.console import make_console
from subfour.cli.display import ProgressDisplay
from subfour.cli.observers import Observers
from subfour.cli.recipe_arguments import RecipeOptions, resolved, split_recipe
from subfour.cli.summary import print_summary
from subfour.cli.tensorboard import TensorBoard
from subfour.profit.config import RunConfig
from subfour.profit.data_free import quantize_without_data
from subfour.profit.method import ProfitRun
from subfour.profit.observer import Observer
from subfour.profit.phases import build_phases
from subfour.profit.result import RESULT_FILE, write_result
from subfour.profit.session import DATA_FILE, DataRecord, Session, continued, prepare_session
from subfour.rundir import JSON, RunDirectory, environment
from subfour.train.allocator import keep_freed_memory
from subfour.train.interruption import Interruption, Terminated

USAGE = "subfour train RECIPE [options]\n       subfour train --resume RUN"


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
            raise ValueError("tensorboard: it is not installed; install it with: pip install 'subfour[tensorboard]'")


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
    safeguards: Annotated[Safeguards, tyro.conf.arg(name="")] = Safeguards()
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run; it keeps its own configuration."""

    resume: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
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
        config = continued(config, config.from_run)
    build_phases(config)
    out = options.out or _free_directory(config.recipe)
    RunDirectory(out).require_free(config.to_json())
    console = make_console(stderr=options.output.json)
    session = _prepare(config, console)  # before the folder is made: a start that fails leaves nothing behind
    records: dict[str, JSON] = {
        "environment.json": environment(),
        "plan.json": [phase.to_json() for phase in build_phases(config)],
        DATA_FILE: session.data.to_json(),
    }
    directory = RunDirectory.create(out, config.to_json(), records)
    interruption = Interruption(options.safeguards.checkpoint_minutes)
    with directory.locked(), _resumable(directory), interruption.listening():
        result = _train(session, directory, console, options, interruption)
    _show(result, directory, console, options.output)


def _resume(arguments: Sequence[str]) -> None:
    try:
        options = parse(ResumeOptions, arguments, prog="subfour train")
    except ValueError as error:
        raise ValueError(f"{error} (a run that goes on keeps its own recipe and options)") from None
    directory = RunDirectory.open(options.resume)
    console = make_console(stderr=options.output.json)
    if (directory.path / RESULT_FILE).exists():
        console.print(f"{directory.path} is finished; nothing is left to train.")
        result = directory.read_json(RESULT_FILE)
    else:
        interruption = Interruption(options.safeguards.checkpoint_minutes)
        with directory.locked(), _resumable(directory), interruption.listening():
            session = _prepare(RunConfig.from_json(directory.read_json("config.json")), console)
            if session.data != DataRecord.from_json(directory.read_json(DATA_FILE)):
                raise ValueError(f"data: {session.config.data} is not what it was when {directory.path} began; bring it back")
            result = _train(session, directory, console, options, interruption)
    _show(result, directory, console, options.output)


def _prepare(config: RunConfig, console: Console) -> Session:
    with console.status("reading images, building the network"):
        return prepare_session(config)


@contextmanager
def _resumable(directory: RunDirectory) -> Iterator[None]:
    """Tell who interrupts how to go on."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        raise type(stop)(f"go on with: subfour train --resume {shlex.quote(str(directory.path))}") from None


def _train(
    session: Session,
    directory: RunDirectory,
    console: Console,
    options: TrainOptions | ResumeOptions,
    interruption: Interruption,
) -> dict[str, Any]:
    """Train what is left of a run, and return its result."""
    if session.config.method == "data-free":
        return write_result(session, directory, quantize_without_data(session))
    guard = not options.safeguards.ignore_collapse
    phases = build_phases(session.config)
    with ExitStack() as stack:
        display = ProgressDisplay(console, phases, session.training.steps_per_epoch)
        observers: list[Observer] = [display]
        if options.output.tensorboard:
            observers.append(stack.enter_context(TensorBoard(directory.path / "tensorboard", phases)))
        with console.status("evaluating the starting weights"):
            training = ProfitRun(session, directory, Observers(observers), interruption=interruption, collapse_guard=guard)
        stack.enter_context(display)
        return write_result(session, directory, training.train())


def _show(result: dict[str, Any], directory: RunDirectory, console: Console, output: Output) -> None:
    if output.json:
        print(json.dumps(result, indent=2))
    else:
        print_summary(console, result, directory.path)


def _free_directory(recipe: str) -> Path:
    """Return the first of runs/RECIPE, runs/RECIPE-2, ... that does not exist."""
    name, number = Path("runs") / recipe, 1
    path = name
    while path.exists():
        number += 1
        path = name.with_name(f"{name.name}-{number}")
    return path
