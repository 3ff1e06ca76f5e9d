"""What can be damaged, and what the package makes of it."""

import contextlib
import hashlib
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from faults.damage import damaged
from faults.sound import NETWORK
from faults.strangers import ANOTHER, FOREIGN
from subfour.cli import main as command_line
from subfour.data.index import index_file
from subfour.data.sources import load_images
from subfour.models.zoo import build_model
from subfour.profit.model_file import read_model
from subfour.train.checkpoint import CheckpointStore

Damage = Callable[[bytes, Path, random.Random], bytes]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of file that can be damaged."""

    name: str
    share: int
    """Of the cases, relative to the others."""
    choose: Callable[[Path, random.Random], list[Path]]
    """Which files are damaged, in a copy of the sound folder."""
    read: Callable[[Path], object]
    """What the package makes of the copy."""
    recovers: bool = False
    """Whether another file may take the place of the damaged one."""
    checked: bool = True
    """Whether the format tells every change."""
    damage: Damage = damaged
    """What happens to the file."""


def checkpoints(folder: Path) -> list[Path]:
    """Return the files of the run, the newest last."""
    return sorted((folder / "run" / "checkpoints").iterdir())


def images(folder: Path) -> list[Path]:
    """Return the image files."""
    return sorted((folder / "images").rglob("*.*"))


def digest(*parts: object) -> str:
    """Return something that differs when one of the parts does."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def tensors_digest(tensors: dict[str, torch.Tensor]) -> str:
    """Return a digest of names, types, shapes and values."""
    return digest([(name, value.dtype, value.shape, value.flatten().tolist()) for name, value in tensors.items()])


def read_newest(folder: Path) -> str:
    """Return what the newest checkpoint holds."""
    checkpoint = CheckpointStore(folder / "run" / "checkpoints").load_newest()
    assert checkpoint is not None
    return digest(checkpoint.number, checkpoint.state, tensors_digest(checkpoint.tensors))


def resume(folder: Path) -> str:
    """Return the model of the run when it has gone on. Where its images lie and what computes it decides none of it."""
    printed("train", "--resume", str(folder / "run"))
    trained = read_model(folder / "run" / "model.safetensors")
    return digest(tensors_digest(trained.model.state_dict()), trained.config.digest, trained.data, trained.weight_bits)


def read_model_file(folder: Path) -> str:
    """Return the model."""
    trained = read_model(folder / "model.safetensors")
    return digest(tensors_digest(trained.model.state_dict()), trained.config, trained.data, trained.weight_bits)


def read_weights(folder: Path) -> str:
    """Return a network that starts from the weights."""
    model = build_model(NETWORK, num_classes=2, weights=str(folder / "weights.pth")).model
    return tensors_digest(model.state_dict())


def read_images(source: str) -> str:
    """Return class names, labels and pixels of a source."""
    data = load_images(source)
    splits = {
        name: [(int(split.labels[index]), split.image(index).tobytes()) for index in range(len(split))]
        for name, split in data.splits.items()
    }
    return digest(data.classes, splits)


def read_folder(folder: Path) -> str:
    """Return the images."""
    return read_images(f"folder:{folder / 'images'}")


def printed(*words: str) -> str:
    """Return what a command prints.

    Raises:
        ValueError: the command refused: one line, exit code 2.
        AssertionError: it ended in another way.
    """
    said, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            command_line.main(words)
    except SystemExit as stop:
        lines = errors.getvalue().splitlines()
        refusals = [line for line in lines if not line.startswith("subfour: warning: ")]
        if stop.code != 2 or len(refusals) != 1:
            raise AssertionError(f"exit code {stop.code}: {lines}") from None
        raise ValueError(refusals[0].removeprefix("subfour: ")) from None
    return said.getvalue()


def read_exported(folder: Path, command: str, *options: str) -> str:
    """Return what a command makes of an exported file; the file counts too, since the command has to tell every change of it.

    Raises:
        ValueError: the command refused, with a line that names the file.
    """
    file = folder / "model.onnx"
    try:
        said = printed(command, str(file), *options)
    except ValueError as refusal:
        if str(file) not in str(refusal):
            raise AssertionError(f"it does not name the file: {refusal}") from None
        raise
    return digest(file.read_bytes(), "" if command == "benchmark" else said)


def verify(folder: Path) -> str:
    """Return the comparison of an exported file with the model that it came from."""
    words = "--data digits --images 2 --batch-size 2 --threads 1 --json --run"
    return read_exported(folder, "verify", *words.split(), str(folder / "trained.safetensors"))


def predict(folder: Path) -> str:
    """Return the probabilities of an image's classes."""
    return read_exported(folder, "predict", str(images(folder)[0]), "--threads", "1", "--json")


def benchmark(folder: Path) -> str:
    """Return nothing but that an exported file was timed."""
    return read_exported(folder, "benchmark", *["--runtimes", "onnxruntime", "--batches", "1", "--repeats", "1", "--json"])


def damaged_or_exchanged(whole: bytes, mark: Path, rng: random.Random, *, strangers: Sequence[str]) -> bytes:
    """Return an exported file with some damage, or in a third of the cases another ONNX file in its place.

    Args:
        whole: the sound content.
        mark: a file that hostile content would make, if it ran.
        rng: decides.
        strangers: names of the others.
    """
    if rng.random() < 1 / 3:
        return (mark.parent / "strangers" / rng.choice(strangers)).read_bytes()
    return damaged(whole, mark, rng)


TARGETS = [
    Target(name="newest checkpoint", share=10, choose=lambda f, _: checkpoints(f)[-1:], read=read_newest, recovers=True),
    Target(name="every checkpoint", share=10, choose=lambda f, _: checkpoints(f), read=read_newest),
    Target(name="every checkpoint, resumed", share=3, choose=lambda f, _: checkpoints(f), read=resume),
    Target(name="config.json, resumed", share=7, choose=lambda f, _: [f / "run" / "config.json"], read=resume),
    Target(name="model file", share=15, choose=lambda f, _: [f / "model.safetensors"], read=read_model_file),
    Target(name="weights.pth", share=8, choose=lambda f, _: [f / "weights.pth"], read=read_weights, checked=False),
    Target(
        name="parquet",
        share=15,
        choose=lambda f, _: [f / "validation.parquet"],
        read=lambda f: read_images(f"parquet:{f / 'validation.parquet'}"),
        checked=False,
    ),
    Target(name="image", share=25, choose=lambda f, rng: [rng.choice(images(f))], read=read_folder, checked=False),
    Target(name="folder index", share=7, choose=lambda f, _: [index_file(f / "images")], read=read_folder),
]
TARGETS += [
    Target(
        name=f"exported file, {read.__name__}",
        share=share,
        choose=lambda f, _: [f / "model.onnx"],
        read=read,
        damage=partial(damaged_or_exchanged, strangers=strangers),
    )
    for read, share, strangers in ((verify, 10, (*FOREIGN, ANOTHER)), (predict, 15, FOREIGN), (benchmark, 10, FOREIGN))
]
