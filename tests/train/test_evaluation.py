import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.train.evaluation import evaluate

CPU = torch.device("cpu")


def batches(logits: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches whose images are the logits themselves, for a model that returns its input."""
    return list(zip(logits.split(size), labels.split(size), strict=True))


def random_answers(count: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)


def test_four_images_by_hand():
    """Ranks 1, 2, 5 and 6 of the labels: top-1 25 %, top-5 75 %."""
    logits = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]).expand(4, 6)
    found = evaluate(nn.Identity(), batches(logits, torch.tensor([0, 1, 4, 5]), 3))
    rest = math.log(sum(math.exp(value) for value in range(1, 7)))
    assert (found.top1, found.top5, found.images) == (25.0, 75.0, 4)
    assert found.loss == pytest.approx(rest - (6 + 5 + 2 + 1) / 4)


@pytest.mark.parametrize("size", [1, 7, 50, 101])
def test_batches_of_any_size_count_every_image_once(size: int):
    """The last, smaller batch too; the loss is the mean over images, not over batches."""
    logits, labels = random_answers(101, 10)
    found = evaluate(nn.Identity(), batches(logits, labels, size), CPU)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert found.images == 101
    assert found.top1 == pytest.approx(100 * (ranks < 1).double().mean().item())
    assert found.top5 == pytest.approx(100 * (ranks < 5).double().mean().item())
    assert found.loss == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-12)


def test_with_fewer_than_five_classes_every_answer_is_among_the_first_five():
    """Top-5 is 100 %."""
    logits, labels = random_answers(10, 3)
    assert evaluate(nn.Identity(), batches(logits, labels, 4)).top5 == 100


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_in_evaluation_mode_and_comes_back_in_its_own(training: bool):
    """Batch norm does not move, dropout does nothing, no graph is built."""
    model = nn.Sequential(nn.BatchNorm1d(10), nn.Dropout(0.5)).train(training)
    modes = []
    model.register_forward_hook(lambda module, _, output: modes.append((module.training, output.requires_grad)))
    logits, labels = random_answers(20, 10)
    evaluate(model, batches(logits, labels, 5), CPU)
    assert modes == [(False, False)] * 4
    assert model.training == model[1].training == training
    assert model[0].num_batches_tracked == 0


def test_no_image_is_an_error():
    """Not 0 %."""
    with pytest.raises(ValueError, match="there is no image"):
        evaluate(nn.Identity(), [])
