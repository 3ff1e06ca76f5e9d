import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)
from torch.optim import SGD

from subfour.train.average import WeightAverage
from subfour.train.distill import Teacher, distillation_loss
from subfour.train.loop import EpochResult, EpochTotals, Trainer, train_epoch
from subfour.train.precision import Precision

CPU = torch.device("cpu")


def linear_model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def some_batches() -> list[tuple[Tensor, Tensor]]:
    """Return batches of different sizes."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 6, generator=generator), torch.arange(size) % 3) for size in (4, 8, 5)]


def trainer_of(model: nn.Module, *, teacher: Teacher | None = None, rate_per_step: bool = False) -> Trainer:
    """Return a trainer with two groups of parameters; the rate falls by a tenth an epoch."""
    weights, others = {"params": [model.weight], "base_lr": 0.1}, {"params": [model.bias], "base_lr": 0.001}
    return Trainer(
        model=model,
        optimizer=SGD([weights, others], lr=9.0, momentum=0.9, nesterov=True),
        loss=distillation_loss,
        teacher=teacher,
        average=WeightAverage(model, 0.5),
        rate=lambda position: 1 - position / 10,
        rate_per_step=rate_per_step,
        device=CPU,
        precision=Precision("fp32", CPU),
    )


class Watch:
    """Keeps what a trainer says, and the rates it says it at."""

    def __init__(self, trainer: Trainer) -> None:
        """Watch a trainer."""
        self.trainer = trainer
        self.seeded: list[int] = []
        self.steps: list[tuple[int, float, float]] = []
        self.rates: list[tuple[float, ...]] = []

    def run(self, epoch: int = 0) -> EpochResult:
        """Train an epoch."""
        return train_epoch(
            self.trainer, some_batches(), epoch=epoch, steps=3, seed_step=self.seeded.append, on_step=self._step_done
        )

    def _step_done(self, step: int, loss: float, top1: float) -> None:
        self.steps.append((step, loss, top1))
        self.rates.append(tuple(group["lr"] for group in self.trainer.optimizer.param_groups))


def test_an_epoch_by_hand():
    """Weights, average, loss and top-1 are those of Nesterov's momentum written out in float64."""
    model = linear_model()
    expected = {name: value.double().detach().clone() for name, value in model.named_parameters()}
    average = {name: value.clone() for name, value in expected.items()}
    momentum = {name: torch.zeros_like(value) for name, value in expected.items()}
    total, hits = 0.0, 0
    for images, labels in some_batches():
        leaves = {name: value.requires_grad_() for name, value in expected.items()}
        logits = F.linear(images.double(), leaves["weight"], leaves["bias"])
        loss = F.cross_entropy(logits, labels)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        for name, rate in (("weight", 0.1), ("bias", 0.001)):
            momentum[name] = 0.9 * momentum[name] + gradients[name]
            expected[name] = (leaves[name] - rate * (gradients[name] + 0.9 * momentum[name])).detach()
            average[name] = 0.5 * average[name] + 0.5 * expected[name]
        total += loss.item() * len(labels)
        hits += int((logits.argmax(1) == labels).sum())
    trainer = trainer_of(model)
    found = Watch(trainer).run()
    assert (found.loss, found.top1) == pytest.approx((total / 17, 100 * hits / 17))
    for name, value in model.named_parameters():
        assert torch.allclose(value.double(), expected[name], atol=1e-6)
        assert torch.allclose(trainer.average.state[name].double(), average[name], atol=1e-6)


def test_the_rate_changes_once_an_epoch():
    """Each group has its own base."""
    watch = Watch(trainer_of(linear_model()))
    watch.run(epoch=4)
    assert watch.rates == [pytest.approx((0.06, 0.0006))] * 3


def test_or_every_step():
    """By the step's share of the epoch."""
    watch = Watch(trainer_of(linear_model(), rate_per_step=True))
    watch.run(epoch=4)
    assert watch.rates == [pytest.approx((0.1 * scale, 0.001 * scale)) for scale in (0.6, 0.6 - 1 / 30, 0.6 - 2 / 30)]


def test_every_step_is_seeded_and_reported():
    """With its number; top-1 is the epoch's so far, and at the end the epoch's."""
    watch = Watch(trainer_of(linear_model()))
    result = watch.run()
    assert watch.seeded == [step for step, _, _ in watch.steps] == [0, 1, 2]
    assert watch.steps[-1][2] == result.top1
    assert sum(loss * size for (_, loss, _), size in zip(watch.steps, (4, 8, 5), strict=True)) / 17 == pytest.approx(result.loss)


@pytest.mark.parametrize("rate_per_step", [False, True])
def test_an_epoch_goes_on_after_any_step(rate_per_step: bool):
    """With the totals so far and the batches that are left: the same steps, rates, weights and result."""
    straight = Watch(trainer_of(linear_model(), rate_per_step=rate_per_step))
    expected = straight.run(epoch=2)
    for done in range(4):
        watch, totals = Watch(trainer_of(linear_model(), rate_per_step=rate_per_step)), EpochTotals()
        for batches in (some_batches()[:done], some_batches()[done:]):
            if not batches and not totals.steps:
                continue
            result = train_epoch(
                watch.trainer, batches, epoch=2, steps=3, seed_step=watch.seeded.append, on_step=watch._step_done, totals=totals
            )
        assert result == expected
        assert (watch.seeded, watch.steps, watch.rates) == (straight.seeded, straight.steps, straight.rates)
        assert torch.equal(watch.trainer.model.weight, straight.trainer.model.weight)
        assert [group["lr"] for group in watch.trainer.optimizer.param_groups] == list(straight.rates[-1])


def test_the_teacher_is_asked_and_stays_as_it_is():
    """Its logits are in the loss."""
    teacher = linear_model()
    with torch.no_grad():
        teacher.weight.add_(1)
    before = copy.deepcopy(teacher.state_dict())
    taught, alone = linear_model(), linear_model()
    with_teacher = Watch(trainer_of(taught, teacher=Teacher(teacher))).run()
    without = Watch(trainer_of(alone)).run()
    assert with_teacher.loss > without.loss
    assert not torch.equal(taught.weight, alone.weight)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_what_does_not_require_a_gradient_stays():
    """Bit for bit, though it is in the optimizer."""
    model = linear_model()
    model.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    Watch(trainer_of(model)).run()
    assert torch.equal(model.weight, before["weight"])
    assert not torch.equal(model.bias, before["bias"])


def test_a_loss_that_is_not_finite_ends_the_run():
    """And says where."""
    model = linear_model()
    with torch.no_grad():
        model.bias.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match=r"the loss is nan in epoch 3, step 1$"):
        Watch(trainer_of(model)).run(epoch=2)
