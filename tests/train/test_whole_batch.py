import copy

import pytest
import timm.layers
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour import collective
from subfour.train.whole_batch import WholeBatch
from tests.workers import in_workers

IMAGES = 7
"""Shares of three workers: 3, 2, 2."""


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    norms = {
        "plain": nn.BatchNorm2d(4),
        "not affine": nn.BatchNorm2d(4, affine=False),
        "timm": timm.layers.BatchNormAct2d(4),
        "vectors": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4)),
    }
    norm = norms[kind]
    for name, value in norm.named_parameters():
        nn.init.uniform_(value, *((0.5, 2) if name.endswith("weight") else (-1, 1)))
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Hardswish()).to(memory_format=torch.channels_last)


def passes(wrapped: bool, kind: str, share: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return output, gradients and statistics of a training pass over a worker's share, and its weight in the loss."""
    generator = torch.Generator().manual_seed(1)
    images = (3 + 2 * torch.randn(IMAGES, 3, 6, 6, generator=generator)).to(memory_format=torch.channels_last)
    rank, count = share
    inputs = images.tensor_split(count)[rank].clone().requires_grad_()
    model = network(kind)
    output = (WholeBatch(model) if wrapped else model)(inputs)
    target = torch.linspace(-1, 1, IMAGES * output[0].numel()).reshape(IMAGES, *output.shape[1:]).tensor_split(count)[rank]
    (output * target).sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters()} | {"images": inputs.grad}
    return output.detach(), gradients, dict(model.named_buffers())


def in_one_worker(kind: str) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    return passes(True, kind, (collective.rank(), collective.count()))


@pytest.mark.parametrize(
    "kind", ["plain", "timm", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("not affine", "vectors"))]
)
def test_batch_norm_over_three_workers_is_that_of_one(kind: str):
    """Output, gradients and running statistics, for shares of unequal size, whatever module the batch norm is."""
    output, gradients, statistics = passes(False, kind, (0, 1))
    results = in_workers(3, in_one_worker, kind)
    torch.testing.assert_close(torch.cat([result[0] for result in results]), output)
    torch.testing.assert_close(torch.cat([result[1].pop("images") for result in results]), gradients.pop("images"))
    for name, gradient in gradients.items():
        torch.testing.assert_close(sum(result[1][name] for result in results), gradient, rtol=1e-5, atol=1e-4)
    for result in results:
        torch.testing.assert_close(result[2], statistics)


def test_one_worker_computes_what_it_would_unwrapped_bit_for_bit():
    for plain, wrapped in zip(passes(False, "plain", (0, 1))[1].values(), passes(True, "plain", (0, 1))[1].values(), strict=True):
        assert torch.equal(plain, wrapped)


class Dropout(nn.Module):
    """As timm's networks have it: no module of torch's."""

    def forward(self, images: Tensor) -> Tensor:
        return F.dropout(images, 0.4, self.training)


def dropped(training: bool) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    share = torch.ones(IMAGES, 50).tensor_split(collective.count())[collective.rank()]
    return WholeBatch(Dropout().train(training))(share), torch.rand(3)


@pytest.mark.slow
def test_dropout_over_three_workers_is_that_of_one():
    """The rows of the mask, and the random numbers that come after it."""
    alone, following = dropped(True)
    shares, followed = zip(*in_workers(3, dropped, True), strict=True)
    assert torch.equal(torch.cat(shares), alone)
    assert 0.5 < float((alone > 0).float().mean()) < 0.7
    assert all(torch.equal(numbers, following) for numbers in followed)
    assert torch.equal(torch.cat([share for share, _ in in_workers(2, dropped, False)]), torch.ones(IMAGES, 50))


def own_batchnorm() -> list[Tensor]:
    model = copy.deepcopy(network("plain"))
    generator = torch.Generator().manual_seed(collective.rank())
    WholeBatch(model, batchnorm=False)(torch.randn(4, 3, 6, 6, generator=generator))
    return [value for name, value in model.named_buffers() if name.endswith("running_mean")]


@pytest.mark.slow
def test_batch_norm_can_be_each_workers_own():
    one, other = in_workers(2, own_batchnorm)
    assert not torch.equal(one[0], other[0])
