import re
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from subfour.data.loader import Augmentation, EvaluationLoader, TrainingLoader

from .batches import loader, same
from .builders import ArraySplit, array_split, geometry, noise


@pytest.mark.parametrize("augment", get_args(Augmentation))
def test_batches_are_what_a_network_reads(augment: Augmentation):
    """float32, channels_last, one label per image."""
    for images, labels in loader(augment=augment).epoch(0):
        assert images.dtype == torch.float32
        assert images.shape == (16, 3, 8, 8)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64
        assert labels.shape == (16,)


@pytest.mark.parametrize("augment", get_args(Augmentation))
def test_an_epoch_is_a_function_of_seed_and_key(augment: Augmentation):
    """Not of what was drawn before it."""
    first = list(loader(augment=augment).epoch(2, 5))
    torch.manual_seed(123)
    again = loader(augment=augment)
    next(again.epoch(0, 0))
    assert same(list(again.epoch(2, 5)), first)
    for other in (again.epoch(2, 6), again.epoch(3, 5), loader(augment=augment, seed=1).epoch(2, 5)):
        assert not same(list(other), first)


@pytest.mark.parametrize("augment", get_args(Augmentation))
def test_an_epoch_can_begin_at_any_step(augment: Augmentation):
    """With the batches that the whole one has from there on."""
    whole = list(loader(70, augment=augment).epoch(3, 1))
    for step in range(len(whole) + 1):
        assert same(list(loader(70, augment=augment).epoch(3, 1, first_step=step)), whole[step:])


@pytest.mark.parametrize("augment", get_args(Augmentation))
def test_the_global_generators_are_left_alone(augment: Augmentation):
    """Dropout draws the same whether or not images were loaded in between."""
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    list(loader(augment=augment, workers=1 if augment == "resized-crop" else 0).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == legacy  # noqa: NPY002


def test_the_number_of_workers_changes_nothing():
    """Each sample has a seed of its own."""
    batches = [list(loader(augment="resized-crop", workers=workers).epoch(1)) for workers in (0, 1, 2)]
    assert same(batches[0], batches[1])
    assert same(batches[0], batches[2])


def test_an_epoch_takes_each_image_at_most_once_and_drops_the_rest():
    """40 images make two batches of 16, in another order each time."""
    training = loader()
    orders = [torch.cat([labels for _, labels in training.epoch(epoch)]).tolist() for epoch in range(3)]
    assert training.steps_per_epoch == 2
    assert all(len(set(order)) == 32 for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert set().union(*orders) == set(range(40))


def test_a_set_smaller_than_a_batch_is_one_batch():
    """A handful of images trains, too."""
    training = loader(5)
    [(images, labels)] = training.epoch(0)
    assert training.steps_per_epoch == 1
    assert len(images) == 5
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4]


def test_max_steps_cuts_an_epoch_short():
    """Its first batches are those of the whole epoch."""
    short = TrainingLoader(array_split(40), geometry(8), batch_size=8, augment="crop", seed=0, max_steps=2)
    whole = TrainingLoader(array_split(40), geometry(8), batch_size=8, augment="crop", seed=0, max_steps=9)
    assert (short.steps_per_epoch, whole.steps_per_epoch) == (2, 5)
    assert same(list(short.epoch(0)), list(whole.epoch(0))[:2])


@pytest.mark.parametrize(
    ("augment", "padding", "flips"), [("none", 0, (False,)), ("crop", 1, (False,)), ("crop-flip", 1, (False, True))]
)
def test_each_view_is_a_shifted_or_mirrored_image(augment: Augmentation, padding: int, flips: tuple[bool, ...]):
    """Of the image its label belongs to, by at most an eighth of the size, and every kind occurs."""
    training = loader(augment=augment)
    seen = set()
    steps = range(2 * padding + 1)
    for images, labels in (batch for epoch in range(4) for batch in training.epoch(epoch)):
        for image, label in zip(images, labels.tolist(), strict=True):
            original = torch.from_numpy(training.split.pixels[label]).permute(2, 0, 1).float() / 255  # type: ignore[attr-defined]
            padded = F.pad(original, (padding,) * 4)
            views = {
                (down, right, flip): padded[:, down : down + 8, right : right + 8].flip([2] if flip else [])
                for down in steps
                for right in steps
                for flip in flips
            }
            fits = [kind for kind, view in views.items() if torch.equal(view, image)]
            assert len(fits) == 1
            seen |= {*fits}
    assert seen == {(down, right, flip) for down in steps for right in steps for flip in flips}


@pytest.mark.parametrize("augment", ["crop-flip", "crop", "resized-crop"])
def test_views_differ_from_step_to_step(augment: Augmentation):
    """Equal images do not make equal batches."""
    split = ArraySplit(np.repeat(noise(1, 8, 8, 3), 32, axis=0), torch.zeros(32, dtype=torch.int64))
    training = TrainingLoader(split, geometry(8), batch_size=16, augment=augment, seed=0)
    first, second = (images for images, _ in training.epoch(0))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("augment", get_args(Augmentation))
def test_a_square_of_every_view_is_of_the_mean_color(augment: Augmentation):
    """Which is 0 once it is normalised, but for rounding to a pixel; the rest is the view without it."""
    preprocessing = replace(geometry(8), mean=(0.2, 0.4, 0.6))
    options = {"batch_size": 16, "augment": augment, "seed": 0, "workers": 0}
    split = array_split(40)
    plain, cut = (TrainingLoader(split, preprocessing, cutout_side=side, **options) for side in (0, 3))  # type: ignore[arg-type]
    for (views, _), (images, _) in zip(plain.epoch(0), cut.epoch(0), strict=True):
        blank = (images.abs() < 1 / 255).all(1)
        assert torch.equal(images.movedim(1, -1)[~blank], views.movedim(1, -1)[~blank])
        assert bool((blank.flatten(1).sum(1) >= 4).all())


def test_evaluation_takes_every_image_once_in_order():
    """The last batch may be smaller."""
    split = array_split(11)
    evaluation = EvaluationLoader(split, geometry(8), batch_size=4)
    batches = list(evaluation)
    assert evaluation.images == 11
    assert [len(images) for images, _ in batches] == [4, 4, 3]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(11))
    pixels = torch.cat([images for images, _ in batches]).mul(255).round().byte()
    assert np.array_equal(pixels.permute(0, 2, 3, 1).numpy(), split.pixels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0 is not possible; use 1 to 2147483647"),
        ({"workers": -1}, "workers: -1 is not possible; use 0 (decode in this process) or more"),
        ({"augment": "flip"}, "augment: 'flip' is not known; use one of crop-flip, crop, resized-crop, none"),
        ({"cutout_side": 9}, "cutout: 9 is not possible with images of 8 pixels; use a side of at most so many, or 0 for none"),
        ({"max_steps": 0}, "max_steps: 0 leaves nothing to train; use 1 or more, or leave it out"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], message: str):
    """With what is allowed."""
    arguments: dict[str, object] = {"batch_size": 2, "augment": "none", "seed": 0} | options
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingLoader(array_split(4), geometry(8), **arguments)  # type: ignore[arg-type]


def test_large_images_are_scaled_and_cropped():
    """As in evaluation, before they are shifted."""
    split = ArraySplit(noise(6, 30, 50, 3), torch.zeros(6, dtype=torch.int64))
    [(images, _)] = TrainingLoader(split, geometry(16, resize=20), batch_size=6, augment="none", seed=0).epoch(0)
    [(expected, _)] = EvaluationLoader(split, geometry(16, resize=20), batch_size=6)
    assert {image.sum().item() for image in images} == {image.sum().item() for image in expected}


@pytest.mark.parametrize(("batch_size", "workers", "parts"), [(8, 2, 2), (10, 2, 3), (12, 3, 4), (11, 4, 2)])
def test_the_workers_shares_of_a_part_are_that_part_of_the_batch(batch_size: int, workers: int, parts: int):
    """Cut into as many parts as one process cuts the batch into: its batch norms see the same images."""
    options: dict[str, Any] = {"batch_size": batch_size, "augment": "crop", "seed": 0}
    training = TrainingLoader(array_split(batch_size), geometry(8), **options)
    (whole,) = training.epoch(0, parts=parts)
    shares = [next(training.epoch(0, share=(rank, workers), parts=parts)) for rank in range(workers)]
    for part in range(parts):
        for one, of_shares in zip(whole, zip(*shares, strict=True), strict=True):
            together = torch.cat([share.tensor_split(parts)[part] for share in of_shares])
            assert torch.equal(together, one.tensor_split(parts)[part])


def test_images_are_scaled_down_when_all_else_is_done():
    """What is left is the same crop, smaller; at their own size they are left alone."""
    options: dict[str, Any] = {"batch_size": 6, "augment": "crop-flip", "seed": 0}
    training = TrainingLoader(array_split(6), geometry(8), **options)
    (images, labels), (same, _), (small, small_labels) = (next(training.epoch(0, size=size)) for size in (None, 8, 4))
    assert torch.equal(same, images)
    assert small.shape == (6, 3, 4, 4)
    assert torch.equal(small_labels, labels)
    assert torch.allclose(small.mean((2, 3)), images.mean((2, 3)), atol=0.1)
