"""The whole recipe end to end: its quantized phases over float training of as many epochs and steps, and where the time goes.

python benchmarks/bench_recipe.py --data FOLDER [--recipe NAME] [--engines auto compiled] [--bits 4] [--share 40] [--out FILE.csv]

Real runs, with teacher, weight average, evaluation of both sets of weights, AIWQ and checkpoints, on every 40th image for
training and for validation, so that an epoch has the recipe's proportions. There is one run for each engine, and one that trains
in float by the same code; they take turns epoch by epoch in one process, on one thread. All begin with four epochs in float that
are not counted: an untrained network has no statistics to set ranges by. What an epoch or a phase costs once does not shrink with
the images: `short` is the time as it was, `whole` has what grows with the images grown to the recipe's number of them. `bare`
compares with float steps and one evaluation an epoch, without average and checkpoints.
"""

import argparse
import statistics
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from recipe_clock import RecipeClock, Seconds, watched
from table import provenance, write_rows

from subfour.profit.config import RunConfig
from subfour.profit.method import ProfitRun
from subfour.profit.phases import Phase, build_phases
from subfour.profit.session import prepare_session
from subfour.recipes import load_recipe
from subfour.rundir import RunDirectory
from subfour.train.allocator import keep_freed_memory

FLOAT = "float32"
WARM_UP = 4
"""Epochs in float that are not counted."""

STEP_PARTS = ("data", "step", "teacher", "average", "sampling")
"""Parts of a step, in milliseconds of one; the others in milliseconds of an epoch."""

COLUMNS = [
    *("recipe", "engine", "kind", "part", "per", "cpu_milliseconds", "wall_milliseconds", "over_float", "wall_over_float"),
    *("epochs", "steps", "bits", "date", "cpu", "torch", "commit"),
]


@dataclass(frozen=True)
class Epoch:
    """What an epoch of a run took."""

    kind: str
    parts: dict[str, Seconds]

    def grown(self, factors: Mapping[str, float]) -> Seconds:
        """Return the seconds of some parts, each times a factor."""
        spent = [(self.parts[part], factor) for part, factor in factors.items() if part in self.parts]
        return Seconds(*(sum(seconds[clock] * factor for seconds, factor in spent) for clock in range(2)))


class Turns:
    """Runs that take turns: one computes, the others wait."""

    def __init__(self, count: int) -> None:
        """Let the first begin."""
        self._changed, self._order = threading.Condition(), deque(range(count))

    def wait(self, who: int) -> None:
        """Wait for a run's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._order[0] == who)

    def hand_on(self) -> None:
        """End the present turn."""
        with self._changed:
            self._order.rotate(-1)
            self._changed.notify_all()

    def leave(self, who: int) -> None:
        """Take a run out."""
        with self._changed:
            self._order.remove(who)
            self._changed.notify_all()


class Watcher:
    """Observes a run: turns its clock from part to part, and hands on after each epoch."""

    def __init__(self, clock: RecipeClock, turns: Turns, number: int, steps: int) -> None:
        """Watch the run of a number, with so many steps an epoch."""
        self.clock, self.turns, self.number, self.steps = clock, turns, number, steps
        self.epochs: list[Epoch] = []

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Its first step begins."""
        del index, phase, frozen, next_epoch
        self.clock.turn_to("step")

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """After the last one the epoch is rounded off."""
        del loss, top1
        if step + 1 == self.steps:
            self.clock.turn_to("between")

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Let the others have their turn."""
        self.epochs.append(Epoch(record["kind"], self.clock.read()))
        self.turns.hand_on()
        self.turns.wait(self.number)
        self.clock.turn_to("step" if record["epoch"] + 1 < record["epochs"] else "entering")
        self.clock.skip()


def part_of_data(folder: Path, share: int, place: Path) -> int:
    """Write the first images of both splits, 1 of `share`, into a folder; return how many there are to train on in all."""
    for split in ("validation", "train"):
        table = pq.read_table(folder / f"{split}.parquet")
        pq.write_table(table.slice(0, len(table) // share), place / f"{split}.parquet")
    return len(table)


def configs(recipe: RunConfig, engines: list[str]) -> dict[str, RunConfig]:
    """Return the run of each engine, with a float phase that only warms up, and a float run of as many epochs."""
    schedule = replace(recipe.schedule, float_epochs=WARM_UP)
    runs = {engine: replace(recipe, schedule=schedule, engine=engine) for engine in engines}
    epochs = sum(phase.epochs for phase in build_phases(runs[engines[0]]))
    schedule = replace(schedule, float_epochs=epochs)
    return {FLOAT: replace(recipe, weight_bits=(32,), activation_bits=(32,), snap=False, schedule=schedule)} | runs


def measured(runs: dict[str, RunConfig], place: Path) -> tuple[dict[str, list[Epoch]], int]:
    """Train every run, in turns; return its epochs, and the steps of one."""
    clock, turns, watchers, trainings = RecipeClock(), Turns(len(runs)), {}, []
    for number, (name, config) in enumerate(runs.items()):
        session = prepare_session(config)
        watchers[name] = Watcher(clock, turns, number, session.training.steps_per_epoch)
        directory = RunDirectory.create(place / f"run-{name}", config.to_json())
        trainings.append(ProfitRun(session, directory, watchers[name], collapse_guard=False))

    def train(number: int) -> None:
        torch.set_num_threads(1)
        turns.wait(number)
        clock.turn_to("entering")
        clock.skip()
        try:
            trainings[number].train()
        finally:
            turns.leave(number)

    with watched(clock), ThreadPoolExecutor(len(runs)) as threads:
        for done in [threads.submit(train, number) for number in range(len(runs))]:
            done.result()
    return {name: watcher.epochs[WARM_UP:] for name, watcher in watchers.items()}, watchers[FLOAT].steps


def growth(part: str, steps: int, all_images: int, config: RunConfig) -> float:
    """Return by how much a part takes longer with all images."""
    batch, images = config.schedule.batch_size, steps * config.schedule.batch_size
    if part == "statistics":
        return min(config.average.reestimate_batches, all_images // batch) / min(config.average.reestimate_batches, steps)
    return all_images / images if part in (*STEP_PARTS, "evaluation") else 1.0


def totals(epochs: list[Epoch], steps: int, all_images: int, config: RunConfig) -> dict[str, Seconds]:
    """Return the seconds of a run as it was, and as it would be with all images; and those of a bare one."""
    parts = dict.fromkeys(part for epoch in epochs for part in epoch.parts)
    whole = {part: growth(part, steps, all_images, config) for part in parts}
    bare = {"data": whole["data"], "step": whole["step"], "evaluation": whole["evaluation"] / 2}
    factors = {"short": dict.fromkeys(parts, 1.0), "whole": whole, "bare": bare}
    return {name: Seconds(*map(sum, zip(*(epoch.grown(of) for epoch in epochs), strict=True))) for name, of in factors.items()}


def rows_of(name: str, epochs: list[Epoch], reference: list[Epoch], steps: int) -> list[dict[str, Any]]:
    """Return the parts of a run, by kind of phase: medians over the epochs, beside those of the float run."""
    rows = []
    for kind in dict.fromkeys(epoch.kind for epoch in epochs):
        numbers = [number for number, epoch in enumerate(epochs) if epoch.kind == kind]
        for part in dict.fromkeys(part for number in numbers for part in epochs[number].parts):
            units = steps if part in STEP_PARTS else 1
            spent = [epochs[number].parts[part] for number in numbers if part in epochs[number].parts]
            float_steps = [reference[number].parts["step"].cpu / steps for number in numbers]
            milliseconds = 1000 * statistics.median(seconds.cpu for seconds in spent) / units
            rows.append(
                {
                    "engine": name,
                    "kind": kind,
                    "part": part,
                    "per": "step" if part in STEP_PARTS else "phase" if part == "entering" else "epoch",
                    "cpu_milliseconds": f"{milliseconds:.2f}",
                    "wall_milliseconds": f"{1000 * statistics.median(seconds.wall for seconds in spent) / units:.2f}",
                    "over_float": f"{milliseconds / 1000 / statistics.median(float_steps):.3f}",
                    "epochs": len(spent),
                }
            )
    return rows


def main() -> None:
    """Print and write the parts and the ratios; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="cifar10-mobilenet-v2")
    parser.add_argument("--engines", nargs="+", default=["auto", "compiled"])
    parser.add_argument("--bits", type=int, nargs="+", help="widths of weights and activations; by default the recipe's")
    parser.add_argument("--share", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    shared = {"recipe": options.recipe, "torch": torch.__version__, **provenance()}
    with tempfile.TemporaryDirectory() as folder:
        all_images = part_of_data(options.data, options.share, Path(folder))
        recipe = replace(load_recipe(options.recipe), data=f"parquet:{folder}")
        if options.bits:
            recipe = replace(recipe, weight_bits=tuple(options.bits), activation_bits=tuple(options.bits))
        shared["bits"] = " ".join(map(str, recipe.weight_bits))
        epochs, steps = measured(configs(recipe, options.engines), Path(folder))
    rows: list[dict[str, Any]] = []
    of_float = totals(epochs[FLOAT], steps, all_images, recipe)
    for name, of_run in epochs.items():
        rows += rows_of(name, of_run, epochs[FLOAT], steps)
        own = totals(of_run, steps, all_images, recipe)
        own["bare"] = own["whole"]
        for part, seconds in own.items():
            row = {"engine": name, "kind": "all", "part": part, "per": "run", "epochs": len(of_run)}
            row |= {"cpu_milliseconds": f"{1000 * seconds.cpu:.0f}", "wall_milliseconds": f"{1000 * seconds.wall:.0f}"}
            row["over_float"] = f"{seconds.cpu / of_float[part].cpu:.3f}"
            rows.append(row | {"wall_over_float": f"{seconds.wall / of_float[part].wall:.3f}"})
    for row in rows:
        print(*(f"{row.get(key, '')!s:>11}" for key in COLUMNS[1:10]))
    if options.out:
        write_rows(options.out, COLUMNS, (row | shared | {"steps": steps} for row in rows))


if __name__ == "__main__":
    main()
