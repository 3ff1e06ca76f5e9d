import re

import pytest
import torch

from subfour.data.images import ImageData, Subset, evaluation_split, training_splits

from .builders import ArraySplit, array_split, noise


def data(**counts: int) -> ImageData:
    return ImageData(classes=tuple("abcdef"), splits={name: array_split(count) for name, count in counts.items()})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "test", "val", "validation"), "validation"),
        (("train", "test", "val"), "val"),
        (("test", "train"), "test"),
        (("train",), "train"),
        (("holdout",), "holdout"),
    ],
)
def test_evaluation_takes_the_only_split_or_the_first_held_out_one(names: tuple[str, ...], expected: str):
    """No name is needed where the choice is clear."""
    images = data(**dict.fromkeys(names, 3))
    assert evaluation_split(images) is images.splits[expected]


def test_evaluation_takes_the_split_it_is_told():
    """A name wins."""
    images = data(train=3, validation=3)
    assert evaluation_split(images, "train") is images.splits["train"]


def test_training_takes_train_and_a_held_out_split():
    """The second is what training is judged by."""
    images = data(test=2, train=3)
    assert training_splits(images) == (images.splits["train"], images.splits["test"])


@pytest.mark.parametrize("counts", [{"train": 3}, {"train": 3, "extra": 3}])
def test_training_never_judges_itself_on_training_images(counts: dict[str, int]):
    """A single split is enough for evaluation, not for training."""
    with pytest.raises(ValueError, match=f"split: the data has {', '.join(counts)}, but none of validation, val, valid, test"):
        training_splits(data(**counts))


def test_a_missing_split_is_named():
    """With those that are there."""
    with pytest.raises(ValueError, match="split: the data has no 'train', only val, test; name one of these or add it"):
        training_splits(data(val=3, test=3))
    with pytest.raises(ValueError, match="split: the data has no 'vall', only train, val"):
        evaluation_split(data(train=3, val=3), "vall")


def test_an_empty_split_is_named():
    """Nothing can be evaluated on no images."""
    with pytest.raises(ValueError, match="split: 'val' holds no images"):
        evaluation_split(data(train=3, val=0))


@pytest.mark.parametrize("wrong", [-1, 2])
def test_a_label_that_is_no_class_is_named_when_its_split_is_used(wrong: int):
    """A hub's unlabelled test split does not matter to training."""
    good, bad = (ArraySplit(noise(3, 8, 8, 3), torch.tensor(labels)) for labels in ([0, 1, 0], [0, 1, wrong]))
    images = ImageData(classes=("a", "b"), splits={"train": good, "validation": good, "test": bad})
    training_splits(images)
    with pytest.raises(ValueError, match=re.escape(f"label: image 2 has {wrong}, but the 2 classes are 0..1")):
        evaluation_split(images, "test")


@pytest.mark.parametrize(("classes", "message"), [(("cat",), "the data has only cat;"), ((), "the data has only none;")])
def test_one_class_is_refused(classes: tuple[str, ...], message: str):
    """There is nothing to tell apart."""
    with pytest.raises(ValueError, match=f"classes: {message} training needs two or more"):
        training_splits(ImageData(classes=classes, splits={}))


def test_a_subset_has_the_images_labels_and_places_of_its_split():
    split = array_split(10)
    subset = Subset(split, [7, 3])
    assert len(subset) == 2
    for index, place in enumerate([7, 3]):
        assert subset.image(index).tobytes() == split.image(place).tobytes()
        assert subset.labels[index] == split.labels[place]
        assert subset.where(index) == split.where(place)
