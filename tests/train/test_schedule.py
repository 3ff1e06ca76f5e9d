import itertools
import math

import pytest

from subfour.train.schedule import CosineSchedule, constant


def scales(epochs: int, warmup_epochs: float, final_scale: float = 0.001) -> list[float]:
    schedule = CosineSchedule(epochs=epochs, warmup_epochs=warmup_epochs, final_scale=final_scale)
    return [schedule.scale(epoch) for epoch in range(epochs)]


def test_the_papers_finetune_phase():
    """15 epochs: 0.1, 0.4, 0.7 of the rate, then a cosine over 12 from 1 towards 0.001."""
    found = scales(15, 3)
    assert found[:3] == pytest.approx([0.1, 0.4, 0.7])
    assert found[3:] == pytest.approx([0.001 + 0.999 * (1 + math.cos(math.pi * k / 12)) / 2 for k in range(12)])
    assert found[3] == 1
    assert found[9] == pytest.approx(0.5005)


def test_the_papers_stabilize_phase():
    """No warm-up: the full rate at once."""
    found = scales(5, 0)
    assert found == pytest.approx([0.001 + 0.999 * (1 + math.cos(math.pi * k / 5)) / 2 for k in range(5)])


def test_sampling_has_a_constant_rate():
    """As in the authors' code, where that phase has no scheduler."""
    assert [constant(position) for position in (0, 0.5, 4)] == [1, 1, 1]


@pytest.mark.parametrize(("epochs", "warmup_epochs"), [(1, 0), (1, 3), (2, 3), (3, 3), (15, 3), (2, 0.5)])
def test_every_phase_rises_to_the_full_rate_and_falls_to_the_final_one(epochs: int, warmup_epochs: float):
    """However short it is, warm-up included; without a jump."""
    schedule = CosineSchedule(epochs=epochs, warmup_epochs=warmup_epochs, final_scale=0.001)
    positions = [epochs * step / 10_000 for step in range(10_000)]
    found = [schedule.scale(position) for position in positions]
    top = found.index(max(found))
    assert found[0] == pytest.approx(0.1 if warmup_epochs else 1)
    assert max(found) == pytest.approx(1, abs=1e-3)
    assert found[-1] == pytest.approx(0.001, abs=1e-6)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert max(abs(one - other) for one, other in itertools.pairwise(found)) < 0.01


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, [1]), (2, [0.1, 1]), (3, [0.1, 1, 0.5005]), (4, [0.1, 1, 0.75025, 0.25075]), (15, scales(15, 3))],
)
def test_a_rate_per_epoch_leaves_a_short_phase_little_warmup(epochs: int, expected: list[float]):
    """From three epochs on it ends low; the paper's phases keep all of theirs."""
    schedule = CosineSchedule(epochs=epochs, warmup_epochs=3, final_scale=0.001, per_epoch=True)
    assert [schedule.scale(position) for position in range(epochs)] == pytest.approx(expected)
