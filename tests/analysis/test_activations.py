from dataclasses import replace

import pytest
import torch
from torch import Tensor

from subfour.analysis.activations import QuantizerSample, probe
from subfour.layers import quant_layers
from subfour.quantizers import DuQ, Quantizer
from tests.convert.stock_networks import random_images
from tests.profit.quantized_networks import tiny


def sample(values: list[float], *, bits: int = 2) -> QuantizerSample:
    """Return values and an unsigned quantizer with the levels 0, 1, 2, 3."""
    quantizer = DuQ("unsigned")
    quantizer.bits = bits
    quantizer.set_ranges(torch.tensor(3.0))
    return QuantizerSample(
        layer="layer",
        kind="pointwise",
        role="activation",
        quantizer=quantizer,
        pad_value=0.0,
        pads=False,
        values=torch.tensor(values),
    )


def test_shares_and_error_by_hand():
    """Codes 0, 1, 1, 3, 3: code 2 is dead, 5.0 is clipped to 3, and -1 to 0. The errors are 1, 0, 0.25, 0, 2."""
    found = sample([-1.0, 1.0, 1.25, 3.0, 5.0])
    assert found.levels.tolist() == pytest.approx([0, 1, 2, 3])
    assert found.codes.tolist() == [0, 1, 1, 3, 3]
    assert found.dead_share == pytest.approx(1 / 4)
    assert found.saturated_share == pytest.approx(2 / 5)
    assert found.commonest_share == pytest.approx(2 / 5)
    assert found.negative_share == pytest.approx(1 / 5)
    assert found.error == pytest.approx((1 + 0.25**2 + 4) / (1 + 1 + 1.25**2 + 9 + 25))


def test_the_probe_samples_what_enters_every_quantizer():
    model = tiny(4)
    images = random_images(6, 32)
    seen: dict[str, Tensor] = {}
    for name, layer in quant_layers(model).items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0]))
    found = probe(model, [(images, torch.zeros(6, dtype=torch.long))])
    inputs = {entry.layer: entry.values for entry in found.samples if entry.role == "activation"}
    assert inputs.keys() == quant_layers(model).keys()
    assert all(set(values.tolist()) <= set(seen[name].flatten().tolist()) for name, values in inputs.items())
    weights = {entry.layer: entry.values for entry in found.samples if entry.role == "weight"}
    assert all(torch.equal(values, quant_layers(model)[name].weight.flatten()) for name, values in weights.items())


def test_mistakes_are_counted_over_all_batches_the_surest_first():
    model, images = tiny(4), random_images(6, 32)
    right = model(images).argmax(dim=1)
    labels = right.clone()
    labels[[1, 4, 5]] = (right[[1, 4, 5]] + 1) % 10
    found = probe(model, [(images[:4], labels[:4]), (images[4:], labels[4:])])
    assert {mistake.index for mistake in found.mistakes} == {1, 4, 5}
    assert [mistake.confidence for mistake in found.mistakes] == sorted((m.confidence for m in found.mistakes), reverse=True)
    assert all(mistake.predicted == right[mistake.index] and mistake.label == labels[mistake.index] for mistake in found.mistakes)
    assert found.images == 6


def test_a_float_network_has_no_samples_and_keeps_no_hooks():
    model = tiny(32, 32)
    assert probe(model, [(random_images(2, 32), torch.zeros(2, dtype=torch.long))]).samples == []
    assert not any(module._forward_pre_hooks for module in model.modules())


class Powers(Quantizer):
    """The values 1, 2, 4 and 8 at 2 bits, which have no constants of the one form."""

    uniform = False

    def values(self, codes: Tensor) -> Tensor:
        return 2**codes

    def codes(self, values: Tensor) -> Tensor:
        return values.clamp(1, 8).log2().round()


def test_values_beyond_levels_that_are_not_evenly_spaced_are_saturated():
    """By more than half the distance of the outermost two: below 0.5, above 10."""
    powers = Powers("unsigned")
    powers.bits = 2
    found = replace(sample([0.0, 0.6, 2.0, 9.0, 11.0]), quantizer=powers)
    assert found.saturated_share == pytest.approx(2 / 5)


def test_a_border_is_what_a_learned_offset_has_become():
    model = tiny(4, quantizer="lsq-plus")
    padded = [found for found in probe(model, [(random_images(4), torch.zeros(4, dtype=torch.long))]).samples if found.pads]
    assert {found.quantizer.domain for found in padded} >= {"hswish"}
    assert all(found.pad_value == found.quantizer.offset for found in padded)
