from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from subfour.convert import calibrate as module
from subfour.convert.calibrate import (
    calibrate,
    calibrate_for,
    calibrate_weights,
    forget_weight_ranges,
    needs_calibration,
    set_bits,
)
from subfour.convert.rewrite import convert
from subfour.layers import quant_layers
from subfour.quantizers import DuQ, ImageQuantizer, QuantizerName
from subfour.seeding import derive_seed
from tests.convert.stock_networks import NORMALIZATION, random_images, stock_network

CPU = torch.device("cpu")
NAME = "subfour/tiny_mobilenet_v3"


def converted(weight_bits: int = 32, activation_bits: int = 4, quantizer: QuantizerName = "duq") -> nn.Module:
    model = stock_network(NAME)
    convert(model, quantizer=quantizer, **NORMALIZATION)
    set_bits(model, weight_bits, activation_bits)
    calibrate_weights(model)
    return model


def two_batches(size: int = 32) -> list[tuple[Tensor, Tensor]]:
    images = random_images(6, size)
    return [(images[:4], torch.zeros(4)), (images[4:], torch.zeros(2))]


def inputs_of_layers(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return everything that enters each layer in evaluation mode, as flat float64."""
    seen: dict[str, list[Tensor]] = {name: [] for name in quant_layers(model)}
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].flatten().double()))
        for name, layer in quant_layers(model).items()
    ]
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(values) for name, values in seen.items()}


def ranges(model: nn.Module) -> dict[str, float]:
    return {
        name: layer.activation_quantizer.input_range.item()
        for name, layer in quant_layers(model).items()
        if isinstance(layer.activation_quantizer, DuQ)
    }


@pytest.mark.parametrize("weight_bits", [32, 4])
def test_each_range_is_the_95th_percentile_that_its_domain_asks_for(weight_bits: int):
    """Of the positive part of x, x + 3/8 or |x|, over all batches; every activation float, weights at their width."""
    model = converted(weight_bits)
    calibrate(model, two_batches())
    set_bits(model, weight_bits, 32)
    expected = {}
    for name, values in inputs_of_layers(model, two_batches()).items():
        quantizer = quant_layers(model)[name].activation_quantizer
        magnitudes = {"unsigned": values, "hswish": values + 3 / 8, "signed": values.abs()}[quantizer.domain]
        expected[name] = np.percentile(magnitudes[magnitudes > 0].numpy(), 95)
    stem = next(iter(expected))
    assert isinstance(quant_layers(model)[stem].activation_quantizer, ImageQuantizer)
    del expected[stem]
    assert ranges(model) == pytest.approx(expected, rel=1e-5)
    assert {layer.activation_quantizer.domain for layer in quant_layers(model).values()} == {"unsigned", "hswish", "signed"}


def test_input_and_output_range_start_equal():
    """As the authors' do."""
    model = converted()
    calibrate(model, two_batches())
    quantizers = [layer.activation_quantizer for layer in quant_layers(model).values()]
    assert all(torch.equal(q.input_range_raw, q.output_range_raw) for q in quantizers if isinstance(q, DuQ))


def test_the_order_of_the_batches_and_of_the_layers_does_not_matter():
    """Ranges set one layer at a time, in any order, are those set at once."""
    together = converted()
    calibrate(together, two_batches())
    backwards = converted()
    calibrate(backwards, two_batches()[::-1])
    assert ranges(backwards) == ranges(together)
    one_by_one = converted(activation_bits=32)
    for layer in reversed(quant_layers(one_by_one).values()):
        layer.activation_quantizer.bits = 4
        calibrate(one_by_one, two_batches())
    assert ranges(one_by_one) == ranges(together)


def test_a_large_input_is_sampled(monkeypatch: pytest.MonkeyPatch):
    """The same values every time, from each batch; the range is near the whole batch's."""
    whole = converted()
    calibrate(whole, two_batches())
    monkeypatch.setattr(module, "SAMPLES_PER_BATCH", 1000)
    sampled, again = converted(), converted()
    calibrate(sampled, two_batches())
    torch.manual_seed(derive_seed("another"))  # no global stream is used
    calibrate(again, two_batches())
    assert ranges(again) == ranges(sampled) != ranges(whole)
    assert ranges(sampled) == pytest.approx(ranges(whole), rel=0.3)


def test_ranges_that_are_known_stay():
    """Only what begins to quantize is calibrated."""
    model = converted()
    assert needs_calibration(model)
    calibrate(model, two_batches())
    assert not needs_calibration(model)
    before = ranges(model)
    set_bits(model, 32, 3)
    assert not needs_calibration(model)
    calibrate(model, [(10 * images, labels) for images, labels in two_batches()])
    assert ranges(model) == before


def test_float_activations_need_nothing():
    """At 32 bits nothing is calibrated, and nothing is missing."""
    model = converted(activation_bits=32)
    assert not needs_calibration(model)
    calibrate(model, two_batches())
    assert all(np.isnan(value) for value in ranges(model).values())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool):
    """Mode, widths, hooks, batch-norm statistics; also after an error."""
    model = converted().train(training)
    norms = {name: value.clone() for name, value in model.state_dict().items() if "running" in name or "tracked" in name}

    def failing() -> Iterator[tuple[Tensor, Tensor]]:
        yield two_batches()[0]
        raise KeyError

    with pytest.raises(KeyError):
        calibrate(model, failing())
    calibrate(model, two_batches())
    assert {part.training for part in model.modules()} == {training}
    widths = {(layer.kind in ("stem", "se"), layer.activation_quantizer.bits) for layer in quant_layers(model).values()}
    assert widths == {(True, 8), (False, 4)}
    assert not any(layer._forward_pre_hooks for layer in quant_layers(model).values())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in norms.items())


def test_a_quantizer_that_is_never_reached_is_an_error():
    """Named; not a silent float layer."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    convert(model, **NORMALIZATION)
    set_bits(model, 32, 4)
    model.forward = lambda images: model[2](model[0](images))
    with pytest.raises(ValueError, match="1: the quantizer at its input was never reached in calibration"):
        calibrate(model, two_batches())


def test_a_quantizer_that_sees_nothing_but_zeros_gets_a_range(caplog: pytest.LogCaptureFixture):
    """Any range is exact for what it has seen; a run of hours must not end because of one dead ReLU."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[0].bias, -1)
    convert(model, **NORMALIZATION)
    set_bits(model, 32, 4)
    calibrate(model, two_batches())
    assert quant_layers(model)["2"].activation_quantizer.initialized
    assert "2: nothing but zeros enters it in calibration, as behind a dead ReLU; its range is a guess" in caplog.text


def test_a_quantizer_that_sees_what_is_not_finite_is_an_error():
    """Named."""
    model = converted()
    images, labels = two_batches()[0]
    with pytest.raises(ValueError, match=r"features\.1\.block\.0\.0: samples: "):
        calibrate(model, [(images * float("nan"), labels)])


def test_a_second_width_gets_ranges_of_its_own():
    """Else nearly all 2-bit codes would be 0 in a range of 4 bits."""
    model, fresh = stock_network(NAME), stock_network(NAME)
    for network, widths in ((model, (4, 2)), (fresh, (2,))):
        convert(network, quantizer="duq", **NORMALIZATION)
        for bits in widths:
            calibrate_for(network, bits, 4, two_batches())
    for one, other in zip(quant_layers(model).values(), quant_layers(fresh).values(), strict=True):
        assert torch.equal(one.quantized_weight(), other.quantized_weight())


@pytest.mark.parametrize("quantizer", ["duq", "pact-sawb"])
def test_weight_ranges_are_set_once_and_anew_when_asked(quantizer: QuantizerName):
    """0.9 max|w| from 4 bits up; a lower width keeps it unless it asks for its own."""
    model = converted(4, quantizer=quantizer)
    layers = quant_layers(model).values()
    first = [{name: value.clone() for name, value in layer.weight_quantizer.state_dict().items()} for layer in layers]
    if quantizer == "duq":
        for layer in layers:
            assert layer.weight_quantizer.input_range.item() == pytest.approx(0.9 * layer.weight.abs().max().item(), rel=1e-5)
    set_bits(model, 2, 4)
    calibrate_weights(model)
    assert [layer.weight_quantizer.state_dict() for layer in layers] == first
    forget_weight_ranges(model)
    calibrate_weights(model)
    assert all(layer.weight_quantizer.state_dict() != before for layer, before in zip(layers, first, strict=True))


def test_widths_are_set_everywhere_but_where_eight_bits_stay():
    """The image and SE inputs keep at least 8 bits; 32 is float for all."""
    model = converted()
    for weight_bits, activation_bits in ((2, 3), (8, 8), (32, 32), (4, 32)):
        set_bits(model, weight_bits, activation_bits)
        for layer in quant_layers(model).values():
            least = 8 if layer.kind in ("stem", "se") else 2
            assert layer.weight_quantizer.bits == weight_bits
            assert layer.activation_quantizer.bits == max(activation_bits, least)


def test_what_a_network_does_in_place_behind_a_layer_does_not_change_its_range():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            values = self.stem(images).relu()
            output = self.last(values)
            values.mul_(100)
            return output + values.mean()

    torch.manual_seed(0)
    model = InPlace()
    convert(model, quantizer="lsq", **NORMALIZATION)
    set_bits(model, 8, 8)
    calibrate_weights(model)
    batches = two_batches(8)
    calibrate(model, batches)
    with torch.no_grad():
        largest = max(float(model.stem(images).relu().max()) for images, _ in batches)
    quantizer = quant_layers(model)["last"].activation_quantizer
    assert float(quantizer.params().scale.detach()) * 255 < 10 * largest


def test_weights_without_a_range_are_named():
    model = stock_network(NAME)
    convert(model, quantizer="duq", **NORMALIZATION)
    set_bits(model, 4, 32)
    name, layer = next(iter(quant_layers(model).items()))
    nn.init.zeros_(layer.weight)
    with pytest.raises(ValueError, match=f"{name}.weight: .*not all zero"):
        calibrate_weights(model)
