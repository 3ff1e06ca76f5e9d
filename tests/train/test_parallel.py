"""Several gloo workers on this machine."""

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import SGD

from subfour import collective
from subfour.data.loader import EvaluationLoader
from subfour.train.average import WeightAverage
from subfour.train.distill import distillation_loss
from subfour.train.evaluation import Accuracy, evaluate
from subfour.train.interruption import WorkerLostError
from subfour.train.loop import Trainer, train_epoch
from subfour.train.parallel import average_statistics, connected, distributed, workers_started
from subfour.train.precision import Precision
from tests.data.builders import array_split, geometry
from tests.workers import in_workers

CPU = torch.device("cpu")

BATCH = 10
"""Shares of three workers: 4, 3, 3."""


def network(*, batchnorm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if batchnorm else nn.Identity()
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.Hardswish(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * 16, 5))


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(BATCH, 3, 6, 6, generator=generator), torch.arange(BATCH) % 5) for _ in range(4)]


def epoch(batchnorm: bool = True, micro_batches: int = 1) -> dict[str, Any]:
    """Train an epoch on this worker's share of each batch; return losses, result, weights and their average."""
    rank, count = collective.rank(), collective.count()
    model = network(batchnorm=batchnorm)
    losses: list[float] = []
    trainer = Trainer(
        model=distributed(model, synchronized=True),
        optimizer=SGD([{"params": list(model.parameters()), "base_lr": 0.1}], lr=9.0, momentum=0.9, nesterov=True),
        loss=distillation_loss,
        teacher=None,
        average=WeightAverage(model, 0.5),
        rate=lambda _: 1.0,
        rate_per_step=False,
        device=CPU,
        precision=Precision("fp32", CPU),
        micro_batches=micro_batches,
    )
    result = train_epoch(
        trainer,
        [(images.tensor_split(count)[rank], labels.tensor_split(count)[rank]) for images, labels in batches()],
        epoch=0,
        steps=4,
        seed_step=torch.manual_seed,
        on_step=lambda step, loss, top1: losses.append(loss),
    )
    return {"losses": losses, "result": result, "weights": model.state_dict(), "average": trainer.average.state}


def test_an_epoch_of_three_workers_is_that_of_one():
    """Losses, accuracy, weights, statistics and average, though no worker has as many images as another and some drop out."""
    alone = epoch()
    for shared in in_workers(3, epoch):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert shared["result"].top1 == alone["result"].top1
        for part in ("weights", "average"):
            torch.testing.assert_close(shared[part], alone[part], rtol=1e-4, atol=1e-5)


def test_workers_end_with_the_same_bits():
    one, *others = in_workers(3, epoch)
    for other in others:
        assert other["losses"] == one["losses"]
        assert all(torch.equal(value, one["weights"][name]) for name, value in other["weights"].items())


def without_dropout(micro_batches: int) -> dict[str, Any]:
    with torch.no_grad():
        dropout, nn.Dropout.forward = nn.Dropout.forward, lambda self, values: values
        try:
            with torch.enable_grad():
                return epoch(False, micro_batches)
        finally:
            nn.Dropout.forward = dropout


@pytest.mark.parametrize("workers", [1, 2])
def test_parts_of_a_batch_make_the_step_of_the_whole(workers: int):
    """Of a network without batch norm, which sees one part only."""
    alone = without_dropout(1)
    for parts in in_workers(workers, without_dropout, 3):
        assert parts["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        torch.testing.assert_close(parts["weights"], alone["weights"], rtol=1e-4, atol=1e-5)


def test_a_step_with_fewer_images_than_parts_is_refused():
    with pytest.raises(ValueError, match="accumulate: 11 parts cannot be made of the 10 images of a step"):
        epoch(False, 11)


def test_one_process_wraps_nothing():
    model = network()
    assert distributed(model, synchronized=True) is model


class Doubled(nn.Module):
    """Images in double precision: in float32 some CPUs add up a small batch in another order than a large one."""

    def forward(self, images: Tensor) -> Tensor:
        return images.double()


def evaluated() -> Accuracy:
    split = replace(array_split(23), labels=torch.arange(23) % 7)
    model = nn.Sequential(Doubled(), nn.Flatten(), nn.Linear(3 * 8 * 8, 7, dtype=torch.float64))
    with torch.no_grad():
        for index, value in enumerate(model.parameters()):
            value.copy_(torch.sin(torch.arange(float(value.numel())) + index).reshape(value.shape))
    share = (collective.rank(), collective.count())
    return evaluate(model, EvaluationLoader(split, geometry(8), batch_size=11, share=share))


def test_evaluation_by_three_workers_counts_every_image_once():
    """The last batch has a single image, so two workers have none of it."""
    alone = evaluated()
    assert alone.images == 23
    for shared in in_workers(3, evaluated):
        assert (shared.top1, shared.top5, shared.images) == (alone.top1, alone.top5, alone.images)
        assert shared.loss == pytest.approx(alone.loss, rel=1e-12)


def averaged() -> list[Tensor]:
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(float(collective.rank()))
    norm.running_var.fill_(3.0 * collective.rank())
    average_statistics(nn.Sequential(norm, nn.BatchNorm2d(3, track_running_stats=False)))
    return [norm.running_mean, norm.running_var]


def test_statistics_of_each_worker_become_their_mean():
    for mean, var in in_workers(3, averaged):
        assert (mean.tolist(), var.tolist()) == ([1.0, 1.0], [3.0, 3.0])


def die_or_wait() -> float:
    if collective.rank() == 1:
        os._exit(9)
    return collective.totals(1.0)[0]


def test_a_worker_that_dies_is_an_error_of_its_own_in_the_others():
    results = in_workers(3, die_or_wait)
    assert [type(result) for result in results] == [WorkerLostError, EOFError, WorkerLostError]
    assert str(results[0]) == "another worker has ended, or cannot be reached"


def test_other_errors_stay_what_they_are():
    (result, _) = in_workers(2, wrong)
    assert isinstance(result, RuntimeError)
    assert "shape" in str(result)


def wrong() -> None:
    torch.zeros(2).reshape(3)


def test_workers_share_no_other_device(monkeypatch: pytest.MonkeyPatch):
    assert workers_started() == 0
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert workers_started() == 2
    with pytest.raises(ValueError, match="device: 'mps' is not possible with several workers"), connected("mps"):
        pass


def patience() -> float:
    return float(dist.distributed_c10d._get_default_group()._get_backend(CPU).options._timeout.total_seconds())


def test_workers_wait_for_one_that_lists_a_large_data_set():
    assert in_workers(2, patience) == [2 * 60 * 60] * 2


def test_workers_that_would_share_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch):
    """NCCL would give up without a word that helps."""
    for name, value in (("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    message = "workers: 2 need a GPU each, and this machine has 1; use so many, or --device cpu"
    with pytest.raises(ValueError, match=message), connected("auto"):
        pass
