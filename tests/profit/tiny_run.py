"""A whole run in seconds, in a process of its own where it is to be killed: 23 phases, two steps an epoch, 200 digits."""

import json
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subfour.data.sources import load_images
from subfour.environment import environment
from subfour.profit.config import AverageConfig, LoadingConfig, RunConfig, ScheduleConfig
from subfour.profit.data_record import DATA_FILE
from subfour.profit.method import ProfitRun
from subfour.profit.observer import Observer
from subfour.profit.phases import Phase
from subfour.profit.result import write_result
from subfour.profit.session import prepare_session
from subfour.recipes import load_recipe
from subfour.rundir import RunDirectory
from subfour.train.checkpoint import CheckpointStore
from subfour.train.interruption import Interruption

SAMPLING, FIRST_FROZEN, SECOND_FROZEN, SNAP = 17, 19, 20, 22
"""Phases of a tiny run, which has 0..22."""


def tiny_config(images: Path) -> RunConfig:
    """Return the digits recipe, cut short.

    Args:
        images: a folder from `write_images`.
    """
    return replace(
        load_recipe("digits"),
        data=f"folder:{images}",
        weight_bits=(8, 5, 3),  # at 3 bits the weight ranges are fitted anew
        loading=LoadingConfig(image_size=32, augment="crop", workers=0),
        schedule=ScheduleConfig(
            batch_size=32,
            float_epochs=2,
            finetune_epochs=2,
            stabilize_epochs=1,
            sample_epochs=2,
            snap_epochs=2,
            float_lr=0.1,
            lr=0.05,
            range_lr_scale=0.1,
            warmup_epochs=1,
            max_steps=2,
        ),
        average=AverageConfig(decay=None, reestimate_batches=2),
        calibration_batches=2,
    )


def sized(config: RunConfig, image_size: int | None) -> RunConfig:
    """Return a configuration whose images have another size, in pixels."""
    return replace(config, loading=replace(config.loading, image_size=image_size))


def write_images(folder: Path, per_class: int = 20) -> None:
    """Write digits as files in ImageNet's layout; a fifth as many again to validate on."""
    for split, count in (("train", per_class), ("val", per_class // 5)):
        images = load_images("digits").splits["train" if split == "train" else "validation"]
        for label in range(10):
            (folder / split / str(label)).mkdir(parents=True)
            for index in (images.labels == label).nonzero().flatten()[:count].tolist():
                images.image(index).save(folder / split / str(label) / f"{index}.png")


@dataclass
class PhaseRecord:
    """The network around one phase."""

    phase: Phase
    frozen: list[str]
    trains: set[str]
    """Parameters that require a gradient."""
    averaged: dict[str, Tensor]
    """The weight average before."""
    before: dict[str, Tensor]
    after: dict[str, Tensor] = field(default_factory=dict)

    def moved(self) -> set[str]:
        """Return the names of the entries of the state that are not what they were, bit for bit."""
        return {name for name, value in self.after.items() if not same(value, self.before[name])}


class Recorder(Observer):
    """Keeps the state of the network around every phase, and a copy of the run's folder after some epochs."""

    def __init__(self, run: ProfitRun, copies: dict[tuple[int, int], Path]) -> None:
        """Prepare.

        Args:
            run: what is watched.
            copies: (phase, epoch) -> where the folder is copied to when that epoch is done.
        """
        self.run, self.copies = run, copies
        self.phases: list[PhaseRecord] = []

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Keep the state before."""
        trains = {name for name, parameter in self.run.model.named_parameters() if parameter.requires_grad}
        averaged = {name: value.clone() for name, value in self.run.average.state.items()}
        self.phases.append(PhaseRecord(phase, frozen, trains, averaged, self._state()))

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Keep the state after, and the folder."""
        self.phases[-1].after = self._state()
        if copy := self.copies.get((record["phase"], record["epoch"])):
            shutil.copytree(self.run.run.path, copy)

    def _state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.run.model.state_dict().items()}


@dataclass(frozen=True)
class Killer(Observer):
    """Kills its own process at one moment."""

    phase: int
    epoch: int
    step: int | None = None
    """None: when the epoch is done and its checkpoint written."""
    signal: int = signal.SIGKILL
    now: list[int] = field(default_factory=lambda: [0, 0])

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Know where the run is."""
        self.now[:] = index, next_epoch

    def step_done(self, step: int, loss: float, top1: float) -> None:
        """Die in the middle of an epoch."""
        if (self.now, step) == ([self.phase, self.epoch], self.step):
            die(self.signal)

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Die at the end of one."""
        if (self.now, self.step) == ([self.phase, self.epoch], None):
            die(self.signal)
        self.now[1] += 1


@dataclass(frozen=True)
class KillerBeforeSaving(Killer):
    """Dies when an epoch is in metrics.jsonl and its checkpoint is about to be written."""

    step: int | None = -1

    def phase_begins(self, index: int, phase: Phase, frozen: list[str], next_epoch: int) -> None:
        """Know where the run is, and lie in wait."""
        super().phase_begins(index, phase, frozen, next_epoch)
        save = CheckpointStore.save

        def waylaid(store: CheckpointStore, *arguments: Any, **options: Any) -> None:
            if self.now == [self.phase, self.epoch]:
                die()
            save(store, *arguments, **options)

        CheckpointStore.save = waylaid  # type: ignore[method-assign]  # this process will not survive it


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same values, NaN being one."""
    return torch.equal(one.nan_to_num(nan=1e30), other.nan_to_num(nan=1e30))


def train(
    folder: Path,
    config: RunConfig,
    watch: Callable[[ProfitRun], Observer] = lambda _: Observer(),
    interruption: Interruption | None = None,
) -> dict[str, Any]:
    """Begin a run, or go on with it, with one thread; return its result."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if (folder / "config.json").exists():
            directory = RunDirectory.open(folder)
            config = RunConfig.from_json(directory.read_json("config.json"))
        else:
            directory = RunDirectory.create(folder, config.to_json())
            directory.write_json("environment.json", environment())
        session = prepare_session(config)
        directory.write_json(DATA_FILE, session.data.to_json())
        run = ProfitRun(session, directory, Observer(), interruption=interruption)
        run.observer = watch(run)
        return write_result(session, directory, run.train())
    finally:
        torch.set_num_threads(threads)


def start(folder: Path, config: RunConfig, killer: Observer, checkpoint_minutes: float = math.inf) -> BaseProcess:
    """Begin a run, or go on with it, in a new process."""
    # Forked from a server that has imported torch and done nothing with it: no thread pool is lost in the fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_child, args=(folder, config, killer, checkpoint_minutes))
    process.start()
    return process


def _child(folder: Path, config: RunConfig, killer: Observer, checkpoint_minutes: float) -> None:
    train(folder, config, lambda _: killer, Interruption(checkpoint_minutes))


def outcome(folder: Path) -> dict[str, Any]:
    """Return all that a finished run has to say but times, machine and commit."""
    timeless = {"seconds", "commit", "dirty"}
    result = json.loads((folder / "result.json").read_text())
    return {
        **{name: (folder / name).read_bytes() for name in ("weights.safetensors", "model.safetensors", "teacher.safetensors")},
        "sensitivity": json.loads((folder / "sensitivity.json").read_text()),
        "metrics": [
            {key: value for key, value in record.items() if key not in timeless} for record in RunDirectory(folder).metrics()
        ],
        "result": {key: value for key, value in result.items() if key not in timeless},
    }
