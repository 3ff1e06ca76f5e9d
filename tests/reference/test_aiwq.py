"""The transcription itself, against the authors' numbers and against numbers on paper."""

import math
from typing import Any

import pytest
import torch

from tests import oracles
from tests.reference import aiwq


@pytest.mark.parametrize("case", oracles.cases("aiwq"))
def test_matches_the_authors_code(case: dict[str, Any]):
    """Within 1e-6 absolute and 1e-3 relative: the recorded float32 value is itself 3e-5 off."""
    images, new, old = (
        oracles.tensor(case, "x"),
        *(torch.tensor(case[name]).reshape(case["w_shape"]) for name in ("w_new", "w_old")),
    )
    settings = {"padding": case["padding"], "pad_value": 0.0, "groups": case["groups"]}
    found = aiwq.sample(aiwq.outputs(images, new, **settings), aiwq.outputs(images, old, **settings))
    assert found == pytest.approx(case["kl"], abs=1e-6, rel=1e-3)


def test_one_channel_by_hand():
    """Old {0, 2}: m = 1, s = sqrt 2. New {1, 5}: m = 3, s = 2 sqrt 2. KL = -ln 2 + (8 + 4)/4 - 1/2."""
    old, new = torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2), torch.tensor([1.0, 5.0]).reshape(1, 1, 1, 2)
    assert aiwq.sample(new, old) == pytest.approx(2.5 - math.log(2), abs=1e-12)


def test_dead_channels_are_left_out():
    """Dead in one of the two is dead; with none alive there is no sample."""
    old = torch.tensor([[0.0, 2.0], [3.0, 3.0]]).reshape(1, 2, 1, 2)
    new = torch.tensor([[1.0, 5.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    assert aiwq.sample(new, old) == pytest.approx(2.5 - math.log(2), abs=1e-12)
    assert aiwq.sample(new[:, 1:], old[:, 1:]) is None


def test_the_running_mean_by_hand():
    """Decay 1/2: 0.4 and 0.1 are kept, 1.5 is dropped, None is no sample: (0.4/4 + 0.1/2) / (3/4) = 0.2."""
    samples = [0.4, 1.5, None, 0.1]
    assert aiwq.running_mean(samples, decay=0.5) == pytest.approx((0.2, 1 / 3))
    assert aiwq.running_mean(samples, decay=0.5, corrected=False) == pytest.approx((0.15, 1 / 3))


def test_the_order_and_its_thirds():
    """Ties by name; floor(L/3) and floor(2L/3)."""
    order = aiwq.freeze_order({"b": 0.1, "a": 0.1, "d": 0.9, "c": 0.0})
    assert order == ["d", "a", "b", "c"]
    assert [aiwq.frozen(order, thirds) for thirds in (0, 1, 2)] == [[], ["d"], ["d", "a"]]
