"""Which steps of a training AIWQ is sampled in, by which engine, and from one session to the next."""

from pathlib import Path

import pytest
import torch
from torch import nn

from subfour.engine.folded import folded_network
from subfour.layers import quant_layers
from subfour.profit.instability_meter import InstabilityMeter
from subfour.train.checkpoint import CheckpointStore
from tests.convert.stock_networks import random_images
from tests.profit.meters import disturb, meter_of
from tests.profit.quantized_networks import tiny


def test_every_step_counts_from_the_second_on():
    """One sample each, of this step's weights against the last one's; nothing outside the block, nothing in evaluation."""
    model = tiny(4).train()
    images = random_images(2, 32)
    meter = meter_of(model)
    model(images)
    with meter:
        for step in range(4):
            model(images)
            disturb(model, step)
        model.eval()
        model(images)
    model.train()(images)
    assert {tuple(counts) for _, *counts in meter.state()[1].values()} == {(3, 0)}
    assert not any(layer._forward_hooks for layer in quant_layers(model).values())


def test_a_meter_goes_on_after_a_checkpoint(tmp_path: Path):
    """Means, counts and the previous weights survive the disk: the values are those of a meter never interrupted."""
    images = random_images(4, 32)
    whole, first, second = (tiny(4).train() for _ in range(3))
    for model in (whole, first, second):
        model.to(memory_format=torch.channels_last)
    straight, begun, resumed = (meter_of(model) for model in (whole, first, second))

    def train(meter: InstabilityMeter, model: nn.Module, steps: range) -> None:
        with meter:
            for step in steps:
                disturb(model, step)
                model(images)

    train(straight, whole, range(6))
    train(begun, first, range(3))
    previous, running = begun.state()
    CheckpointStore(tmp_path).save(0, previous, {"running": running})
    checkpoint = CheckpointStore(tmp_path).load_newest()
    second.load_state_dict(first.state_dict())
    resumed.load_state(checkpoint.tensors, checkpoint.state["running"])
    train(resumed, second, range(3, 6))
    assert resumed.values() == straight.values()
    assert resumed.ranking() == straight.ranking()
    assert resumed.state()[1] == straight.state()[1]
    assert all(counts[1] == 5 for counts in resumed.state()[1].values())


def sampled(network: nn.Module, model: nn.Module, steps: int) -> InstabilityMeter:
    """Return a meter that watched a network while its weights, which are the model's, were moved."""
    with meter_of(network) as meter, torch.no_grad():
        for step in range(steps):
            network(random_images(4, 32).to(model.classifier[0].weight))
            disturb(model, step)
    return meter


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def test_both_engines_measure_the_same():
    """To 1e-6, on codes as on values; each unchanged layer is at 0 but for rounding."""
    plain, model = (without_dropout(tiny(4)).double() for _ in range(2))
    on_values, on_codes = sampled(plain.train(), plain, 4), sampled(folded_network(model).train(), model, 4)
    assert on_codes.values() == pytest.approx(on_values.values(), rel=1e-6)
    assert on_codes.ranking() == on_values.ranking()
    network = folded_network(model).train()
    with meter_of(network) as still:
        for _ in range(3):
            network(random_images(4, 32).double())
    assert {tuple(counts) for _, *counts in still.state()[1].values()} == {(2, 0)}
    assert max(map(abs, still.values().values())) < 1e-12


def test_every_third_image_of_a_batch_gives_the_sample_of_a_batch_of_them():
    """On values and on codes."""
    images = random_images(8, 32).double()
    for twin in (lambda model: model, folded_network):
        values = []
        for stride, batch in ((1, images[::3]), (3, images), (1, images)):
            model = without_dropout(tiny(4)).double().eval()
            network = twin(model)
            for layer in quant_layers(network).values():
                layer.train()  # while batch norm does not look at the other images
            with meter_of(network, stride=stride) as meter, torch.no_grad():
                for step in range(3):
                    network(batch)
                    disturb(model, step)
            values.append(meter.values())
        assert values[1] == pytest.approx(values[0], rel=1e-9)
        assert values[1] != pytest.approx(values[2], rel=1e-3)


@pytest.mark.parametrize("stride", [2, 5, 16])
def test_unchanged_weights_are_at_zero_on_a_part_of_the_batch_too(stride: int):
    """But for rounding: a convolution of fewer images may be computed in another order."""
    model = tiny(4).train()
    with meter_of(model, stride=stride) as meter:
        for _ in range(3):
            model(random_images(16, 32))
    assert max(map(abs, meter.values().values())) < 1e-12
    assert {tuple(counts) for _, *counts in meter.state()[1].values()} == {(2, 0)}
