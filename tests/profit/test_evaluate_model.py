"""Whose classes are whose: a model on data that it was not trained on."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor, nn

from subfour.data.preprocess import Preprocessing
from subfour.profit.config import RunConfig
from subfour.profit.data_record import DataRecord
from subfour.profit.model_file import TrainedModel, evaluate_model
from subfour.train.evaluation import Accuracy
from tests.convert.stock_networks import NORMALIZATION
from tests.data.builders import noise
from tests.profit.quantized_networks import TINY, tiny
from tests.profit.tiny_run import write_images

NUMBERS = tuple("0123456789")

NAMES = ("zebra", "yak", "wolf", "ant", "bee", "cat", "dog", "elk", "fox", "gnu")


class Rearranged(nn.Module):
    """A network whose answers stand in another order."""

    def __init__(self, network: nn.Module, order: list[int]) -> None:
        """Take a network, and which of its answers comes first, second and so on."""
        super().__init__()
        self.inner, self.order = network, order

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, classes]."""
        logits: Tensor = self.inner(images)[:, self.order]
        return logits


def trained(classes: tuple[str, ...], order: list[int] | None = None) -> TrainedModel:
    """Return a model that knows these classes, its answers rearranged."""
    preprocessing = Preprocessing(image_size=32, resize_size=32, interpolation="bilinear", **NORMALIZATION)
    network = tiny(4)
    return TrainedModel(
        model=network if order is None else Rearranged(network, order),
        config=RunConfig(model=TINY, weights="none", data="digits"),
        data=DataRecord(classes=classes, preprocessing=preprocessing),
        rules=[],
        weight_bits=4,
        activation_bits=4,
        snapping=None,
    )


def same(one: Accuracy, other: Accuracy) -> bool:
    return replace(one, loss=0) == replace(other, loss=0) and one.loss == pytest.approx(other.loss, rel=1e-9)


def test_data_of_other_classes_where_one_side_has_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Nobody knows which name is which number: by place, with a warning; more classes than the model has are an error."""
    write_images(tmp_path)
    source = f"folder:{tmp_path}"
    assert evaluate_model(trained(NUMBERS), source).images == 40
    assert not caplog.records
    by_place = evaluate_model(trained(NAMES), source)
    assert "class names differ, first 'zebra' in the model and '0' in the data" in caplog.text
    assert by_place == evaluate_model(trained(NUMBERS), source)
    (tmp_path / "val" / "7").rename(tmp_path / "val" / "7a")
    (tmp_path / "train" / "7").rename(tmp_path / "train" / "7a")
    assert evaluate_model(trained(NUMBERS), source, split="train").images == 200
    assert "class names differ, first '7' in the model and '7a' in the data" in caplog.text
    for split in ("train", "val"):
        (tmp_path / split / "8a").mkdir()
        next((tmp_path / split / "8").iterdir()).rename(tmp_path / split / "8a" / "x.png")
    with pytest.raises(ValueError, match="has 11 classes, the model knows 10"):
        evaluate_model(trained(NUMBERS), source)


def test_classes_are_told_apart_by_name(tmp_path: Path):
    """Whatever their place in the model, and however few of the model's there are; a strange one is refused."""
    for number, name in enumerate(NAMES):
        (tmp_path / "val" / name).mkdir(parents=True)
        for image in range(2):
            Image.fromarray(noise(32, 32, 3, seed=10 * number + image)).save(tmp_path / "val" / name / f"{image}.png")
    source = f"folder:{tmp_path}"
    alphabet = tuple(sorted(NAMES))  # the order of the data's classes
    rearranged = trained(alphabet, [NAMES.index(name) for name in alphabet])
    assert same(evaluate_model(trained(NAMES), source), evaluate_model(rearranged, source))
    assert not same(evaluate_model(trained(NAMES), source), evaluate_model(trained(alphabet), source))
    (tmp_path / "val" / "wolf").rename(tmp_path / "val" / "newt")
    with pytest.raises(ValueError, match=f"data: {source} has a class 'newt', which the model does not know; give data of its"):
        evaluate_model(trained(NAMES), source)
    strangers = trained(tuple(f"class {name}" for name in NAMES))  # by place neither, though nothing is shared
    with pytest.raises(ValueError, match="which the model does not know"):
        evaluate_model(strangers, source)
    shutil.rmtree(tmp_path / "val" / "newt")
    assert same(evaluate_model(trained(NAMES), source), evaluate_model(rearranged, source))
