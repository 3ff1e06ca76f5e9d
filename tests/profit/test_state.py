import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD

from subfour.profit.state import EpochUnderway, RunState, collect_tensors, part, restore_momentum
from subfour.profit.state_dict import load_model
from subfour.train.average import WeightAverage
from subfour.train.checkpoint import CheckpointStore


def small_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 2))
    return model.to(memory_format=torch.channels_last)


def optimizer_of(model: nn.Module) -> SGD:
    return SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1, momentum=0.9, nesterov=True)


def steps(model: nn.Module, optimizer: SGD, numbers: range) -> None:
    for number in numbers:
        images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        model(images.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()


def full_state() -> RunState:
    """Return a state with something in every field."""
    return RunState(
        config="0123abcd",
        phase=3,
        next_epoch=1,
        underway=EpochUnderway(steps=3, loss=0.1 + 0.2, hits=7, images=96, raw_losses=[1 / 3]),
        freeze_order=["b", "a"],
        instability={"b": 0.1 + 0.2, "a": 1e-300},
        dropped={"b": 0.5, "a": 0.0},
        running={"b": [1 / 3, 7, 2], "a": [0.0, 0, 0]},
        snapping={"accumulators": {"a": 7}, "largest": {"b": 1 / 3}, "positions": {}},
        rows=[{"widths": "A4W4", "raw": {"top1": 12.5}}],
        start_top1=9.0,
        padding_top1={"before": 10.0, "after": 9.5},
        unreadable=["photos/train/cat/one.jpg"],
        metrics_size=12345,
        threads=2,
        workers=4,
        loss_scale={"scale": 65536.0, "_growth_tracker": 3},
        seconds=1.5,
    )


def test_every_field_survives_json():
    """Bit for bit, whatever it holds."""
    state, empty = full_state(), RunState()
    assert all(getattr(state, entry.name) != getattr(empty, entry.name) for entry in fields(RunState))
    for value in (state, empty):
        assert RunState.from_json(json.loads(json.dumps(value.to_json()))) == value


def test_a_state_of_another_version_is_refused():
    """Named by what differs; nothing is guessed."""
    data = full_state().to_json()
    del data["threads"]
    with pytest.raises(ValueError, match=r"does not fit this version of subfour \(differs in \['newer', 'threads'\]\)"):
        RunState.from_json(data | {"newer": 1})


def test_training_goes_on_as_if_never_interrupted(tmp_path: Path):
    """Weights, statistics and momentum come back from the disk, bit for bit; what is frozen has no momentum."""
    straight, first, second = small_model(), small_model(), small_model(seed=1)
    for model in (straight, first, second):
        model[4].weight.requires_grad_(False)
    optimizer = optimizer_of(straight)
    steps(straight, optimizer, range(6))

    optimizer = optimizer_of(first)
    steps(first, optimizer, range(3))
    average = WeightAverage(first, 0.9)
    CheckpointStore(tmp_path).save(0, collect_tensors(first, average, optimizer, {"0": torch.ones(2)}, {}), {})
    tensors = CheckpointStore(tmp_path).load_newest().tensors

    load_model(second, part(tensors, "model"))
    optimizer = optimizer_of(second)
    restore_momentum(second, optimizer, part(tensors, "momentum"))
    steps(second, optimizer, range(3, 6))
    assert all(torch.equal(value, straight.state_dict()[name]) for name, value in second.state_dict().items())
    assert part(tensors, "momentum").keys() == {name for name, _ in first.named_parameters()} - {"4.weight"}
    assert part(tensors, "average").keys() == part(tensors, "model").keys() == first.state_dict().keys()
    assert part(tensors, "previous")["0"].tolist() == [1, 1]
    assert len(tensors) == sum(len(part(tensors, name)) for name in ("model", "average", "momentum", "previous"))


def test_momentum_is_left_out_where_there_is_none():
    """Before the first step, and between phases."""
    model = small_model()
    average = WeightAverage(model, 0.9)
    for optimizer in (None, optimizer_of(model)):
        assert not part(collect_tensors(model, average, optimizer, {}, {}), "momentum")


def test_the_state_of_another_model_is_refused():
    """The entries that do not fit are named, a few of them."""
    state = small_model().state_dict()
    with pytest.raises(ValueError, match=r"they are of another model; these entries do not fit: 0\.weight$"):
        load_model(small_model(), state | {"0.weight": torch.ones(5)})
    with pytest.raises(ValueError, match=r"do not fit: 4.bias, a, b and 1 more"):
        load_model(small_model(), {name: value for name, value in state.items() if name != "4.bias"} | dict.fromkeys("abc"))
