import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from subfour.data import decode
from subfour.data.loader import Augmentation, EvaluationLoader, TrainingLoader
from subfour.data.sources import load_images
from subfour.seeding import derive_seed

from .batches import loader, same
from .builders import ArraySplit, array_split, geometry, write_folder


def spoil(folder: Path, *images: str) -> None:
    for image in images:
        (folder / image).write_bytes(b"no image")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", ["none", "resized-crop"])
def test_an_unreadable_image_is_left_out_of_its_batch(tmp_path: Path, augment: Augmentation, workers: int):
    """All other images keep their places and views; who was left out is known, and warned of once."""
    write_folder(tmp_path, images=4)
    options: dict[str, Any] = {"batch_size": 4, "augment": augment, "seed": 0, "workers": workers, "unreadable": "skip"}
    whole = TrainingLoader(load_images(f"folder:{tmp_path}").splits["train"], geometry(8), **options)
    expected = list(whole.epoch(0))
    assert not whole.errors
    spoil(tmp_path, "train/cat/1.png", "train/dog/0.png")
    split = load_images(f"folder:{tmp_path}").splits["train"]
    damaged = TrainingLoader(split, geometry(8), **options)
    found = list(damaged.epoch(0))
    assert {Path(split.where(index)).relative_to(tmp_path).as_posix() for index in damaged.errors} == {
        "train/cat/1.png",
        "train/dog/0.png",
    }
    order = torch.randperm(8, generator=torch.Generator().manual_seed(derive_seed(0, "order", 0)))
    for indices, (images, labels), (all_images, all_labels) in zip(torch.split(order, 4), found, expected, strict=True):
        kept = torch.tensor([index not in damaged.errors for index in indices.tolist()])
        assert torch.equal(images, all_images[kept])
        assert torch.equal(labels, all_labels[kept])


@pytest.mark.parametrize("memory", [decode.MEMORY_BYTES, 0])
def test_evaluation_counts_what_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int):
    """Also where a whole batch cannot be."""
    monkeypatch.setattr(decode, "MEMORY_BYTES", memory)
    write_folder(tmp_path, images=2)
    spoil(tmp_path, "val/cat/0.png", "val/cat/1.png", "val/dog/1.png")
    split = load_images(f"folder:{tmp_path}").splits["val"]
    evaluation = EvaluationLoader(split, geometry(8), batch_size=2, unreadable="skip")
    for _ in range(2):
        assert [labels.tolist() for _, labels in evaluation] == [[1]]
    assert [Path(split.where(index)).name for index in evaluation.errors] == ["0.png", "1.png", "1.png"]


def test_a_step_without_any_readable_image_is_an_error(tmp_path: Path):
    write_folder(tmp_path, images=1)
    spoil(tmp_path, "train/cat/0.png", "train/dog/0.png")
    split = load_images(f"folder:{tmp_path}").splits["train"]
    training = TrainingLoader(split, geometry(8), batch_size=2, augment="none", seed=0, unreadable="skip")
    with pytest.raises(ValueError, match="image: none of the 2 images of a step can be read; repair the data"):
        list(training.epoch(0))


def test_images_that_do_not_fit_into_memory_are_decoded_each_time(monkeypatch: pytest.MonkeyPatch):
    """The result is the same."""
    split = array_split(20)
    kept = list(loader(20, batch_size=8).epoch(3)), list(EvaluationLoader(split, geometry(8), batch_size=8))
    monkeypatch.setattr(decode, "MEMORY_BYTES", 20 * 3 * 8 * 8 - 1)
    for workers in (0, 2):
        assert same(list(loader(20, batch_size=8, workers=workers).epoch(3)), kept[0])
        assert same(list(EvaluationLoader(split, geometry(8), batch_size=8, workers=workers)), kept[1])


def test_an_image_is_decoded_once_where_it_fits(monkeypatch: pytest.MonkeyPatch):
    """Epochs cost no decoding."""
    training, evaluation = loader(), EvaluationLoader(array_split(5), geometry(8), batch_size=2)
    monkeypatch.setattr(ArraySplit, "open", None)
    assert len(list(training.epoch(0))) == 2
    assert len(list(evaluation)) == len(list(evaluation)) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_one_clear_line_even_from_a_worker(tmp_path: Path, workers: int):
    """The message is not wrapped into a worker's traceback."""
    write_folder(tmp_path)
    file = tmp_path / "train" / "dog" / "1.png"
    file.write_bytes(b"nonsense")
    split = load_images(f"folder:{tmp_path}").splits["train"]
    why = r"\(its format is not known\); repair or replace it; training can leave it out with --loading.unreadable skip$"
    message = rf"^image: cannot read {re.escape(str(file))} {why}"
    training = TrainingLoader(split, geometry(8), batch_size=2, augment="resized-crop", seed=0, workers=workers)
    with pytest.raises(ValueError, match=message):
        list(training.epoch(0))
    with pytest.raises(ValueError, match=message):
        EvaluationLoader(split, geometry(8), batch_size=2, workers=workers)


def test_an_image_too_long_to_be_resized_is_named(tmp_path: Path):
    write_folder(tmp_path)
    file = tmp_path / "val" / "dog" / "1.png"
    Image.new("RGB", (30_000, 1)).save(file)
    split = load_images(f"folder:{tmp_path}").splits["val"]
    with pytest.raises(ValueError, match=rf"^image: {re.escape(str(file))}: image size: 30000x1 would become"):
        EvaluationLoader(split, geometry(256), batch_size=2)
