"""`subfour train RECIPE [options]` and `subfour train --resume RUN`."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from subfour.cli.arguments import RecipeOptions, parse, resolved, split_recipe
from subfour.cli.display import Observers, ProgressDisplay, TensorBoard
from subfour.cli.tables import print_result
from subfour.profit.config import RunConfig
from subfour.profit.method import Observer, ProfitRun
from subfour.profit.phases import build_phases
from subfour.profit.result import write_result
from subfour.profit.session import DATA_FILE, continued, prepare_session
from subfour.rundir import RunDirectory, environment
from subfour.train.allocator import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a training shows, and how."""

    tensorboard: bool = False
    """Also write the metrics for TensorBoard, into RUN/tensorboard."""
    json: bool = False
    """Print the result as JSON; progress goes to standard error."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a new run: every field of the recipe, and where it goes."""

    config: RecipeOptions
    out: Path | None = None
    """Run directory; by default a new one, runs/RECIPE or runs/RECIPE-2 and so on."""
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Options of a run that goes on: its configuration is its own."""

    resume: Path
    """The run directory."""
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()


def run(arguments: Sequence[str]) -> None:
    """Train, with a progress display, and print the result."""
    if any(word.split("=")[0] == "--resume" for word in arguments):
        if not arguments[0].startswith("-"):
            raise ValueError(f"resume: a run keeps its own recipe; leave out {arguments[0]!r}")
        options = parse(ResumeOptions, arguments, prog="subfour train")
        directory = RunDirectory.open(options.resume)
        config = RunConfig.from_json(directory.read_json("config.json"))
        _train(config, directory, options.output, starting=False)
        return
    recipe, rest = split_recipe(arguments, "train")
    train_options = parse(TrainOptions, rest, prog=f"subfour train {recipe.recipe}", default=TrainOptions(config=recipe))
    config = resolved(train_options.config, recipe)
    if config.from_run is not None:
        config = continued(config, config.from_run)
    build_phases(config)
    directory = RunDirectory.create(train_options.out or _free_directory(config.recipe), config.to_json())
    _train(config, directory, train_options.output, starting=True)


def _train(config: RunConfig, directory: RunDirectory, output: Output, *, starting: bool) -> None:
    keep_freed_memory()
    console = Console(stderr=output.json)
    with ExitStack() as stack:
        stack.enter_context(directory.locked())
        if starting:
            directory.write_json("environment.json", environment())
            directory.write_json("plan.json", [phase.to_json() for phase in build_phases(config)])
        with console.status("reading images, building the network"):
            session = prepare_session(config, starting=starting)
        directory.write_json(DATA_FILE, session.data.to_json())
        display = stack.enter_context(ProgressDisplay(console, build_phases(config), session.training.steps_per_epoch))
        observers: list[Observer] = [display]
        if output.tensorboard:
            observers.append(stack.enter_context(TensorBoard(directory.path / "tensorboard")))
        state = ProfitRun(session, directory, Observers(observers)).train()
        result = write_result(session, directory, state)
    if output.json:
        print(json.dumps(result, indent=2))
    else:
        print_result(console, result, directory.path)


def _free_directory(recipe: str) -> Path:
    """Return the first of runs/RECIPE, runs/RECIPE-2, ... that does not exist."""
    name, number = Path("runs") / recipe, 1
    path = name
    while path.exists():
        number += 1
        path = name.with_name(f"{name.name}-{number}")
    return path
