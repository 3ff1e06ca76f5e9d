import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.convert.rewrite import convert
from subfour.layers import QuantConv2d, quant_layers
from subfour.profit.config import ProfitConfig
from subfour.profit.freezing import frozen_layers
from subfour.profit.instability import instability
from subfour.profit.instability_meter import InstabilityMeter, RunningInstability
from subfour.quantizers import QUANTIZER_PAIRS, QuantizerName
from tests import oracles
from tests.convert.stock_networks import NORMALIZATION, random_images, stock_network
from tests.profit.meters import disturb, meter_of
from tests.profit.quantized_networks import quantized, tiny
from tests.reference import aiwq


def every_kind() -> nn.Sequential:
    """Return stem, depthwise, pointwise and full convolutions, after each kind of input, padded with 0 and with -3/8."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish()),
        *(nn.Conv2d(8, 8, 5, 1, 2, groups=8), nn.BatchNorm2d(8), nn.Hardswish()),
        *(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16)),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish()),
        *(nn.Conv2d(16, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    )


def filled(meter: InstabilityMeter, samples: dict[str, list[float | None]]) -> InstabilityMeter:
    """Return a meter with the given samples of each layer."""
    meter.load_state({}, {name: [0.0, 0, 0] for name in samples})
    for name, values in samples.items():
        for value in values:
            meter._running[name].add(value, meter.decay)
    return meter


@pytest.mark.parametrize("case", oracles.cases("aiwq"))
def test_matches_the_authors_code(case: dict[str, Any]):
    """Within 1e-6 absolute and 1e-3 relative, from float32 convolutions as in training."""
    images = oracles.tensor(case, "x")
    outputs = [
        F.conv2d(images, torch.tensor(case[name]).reshape(case["w_shape"]), padding=case["padding"], groups=case["groups"])
        for name in ("w_new", "w_old")
    ]
    assert instability(*outputs) == pytest.approx(case["kl"], abs=1e-6, rel=1e-3)


def test_one_channel_by_hand():
    """Old {0, 2}: m = 1, s = sqrt 2. New {1, 5}: m = 3, s = 2 sqrt 2. KL = -ln 2 + (8 + 4)/4 - 1/2; s is the unbiased one."""
    old, new = torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2), torch.tensor([1.0, 5.0]).reshape(1, 1, 1, 2)
    assert instability(new, old) == pytest.approx(2.5 - math.log(2))
    assert instability(old, old) == 0


@pytest.mark.filterwarnings("ignore:std_mean")
def test_dead_channels_are_left_out():
    """Dead in one of the two is dead; with none alive there is no sample, and none from a single value."""
    old = torch.tensor([[0.0, 2.0], [3.0, 3.0]]).reshape(1, 2, 1, 2)
    new = torch.tensor([[1.0, 5.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    assert instability(new, old) == pytest.approx(2.5 - math.log(2))
    assert instability(new[:, 1:], old[:, 1:]) is None
    assert instability(torch.ones(1, 4, 1, 1), torch.ones(1, 4, 1, 1)) is None


@pytest.mark.parametrize("shape", [(16, 8, 16, 16), (3, 8, 112, 112), (1, 4, 40, 5000)])
def test_large_maps_lose_nothing_in_the_layout_of_training(shape: tuple[int, ...]):
    """Channels last, where float32 sums over a batch are off by percents; a constant is none of the channels alive."""
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(shape, generator=generator) * 0.3 + 2
    new = 1.02 * old + 0.01 * torch.randn(shape, generator=generator)
    new[:, 0] = old[:, 0] = 0.3
    old[:, 0] += 1e-3
    expected = instability(new[:, 1:].double(), old[:, 1:].double())
    found = instability(*(output.contiguous(memory_format=torch.channels_last) for output in (new, old)))
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("quantizer", [name for name in QUANTIZER_PAIRS if name != "uniq"])
@pytest.mark.parametrize("padding", ["negative", "zero"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_unchanged_weights_give_exactly_zero_for_every_kind_of_layer(quantizer: QuantizerName, padding: Any, bits: int):
    """The authors' hook does not, for padded h-swish layers: it pads with 0 there."""
    model = quantized(every_kind(), bits, quantizer=quantizer, padding=padding).train()
    with meter_of(model) as meter:
        for _ in range(3):
            model(random_images(4, 32))
    _, running = meter.state()
    assert running == {name: [0.0, 2, 0] for name in ("0", "3", "6", "8", "11", "14")}
    assert {model[int(name)].kind for name in running} == {"stem", "depthwise", "pointwise", "conv"}
    negative = [name for name in running if model[int(name)].pad_value]
    shifted = padding == "negative" and quantizer in ("duq", "duq-offset", "lsq-plus", "dsq")
    assert negative == (["3", "14"] if shifted else [])


def test_running_ranges_move_once_per_step():
    """A second look at a layer's input leaves an affine quantizer's minimum and maximum where the first put them."""
    models = [tiny(4, quantizer="affine").train() for _ in range(2)]
    with meter_of(models[0]):
        for model in models:
            for step in range(3):
                torch.manual_seed(step)  # of dropout
                model((1 + step) * random_images(4, 32))
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_every_layer_agrees_with_the_equations():
    """Each sample is the transcription's, on the layer's own quantized input, padding included."""
    model = tiny(4).train()
    inputs: dict[str, Tensor] = {}
    layers = {name: layer for name, layer in quant_layers(model).items() if isinstance(layer, QuantConv2d)}

    def keep_input(layer: QuantConv2d, given: tuple[Tensor], *, name: str) -> None:
        inputs[name] = layer.quantized_input(given[0]).detach()

    for name, layer in layers.items():
        layer.register_forward_pre_hook(partial(keep_input, name=name))
    with meter_of(model) as meter, torch.no_grad():
        model(random_images(4, 32))
        old = {name: layer.quantized_weight().clone() for name, layer in layers.items()}
        disturb(model, 1)
        model(random_images(4, 32))
    padded = set()
    for name, value in meter.values().items():
        layer = layers[name]
        settings = {
            "padding": layer.padding[0],
            "pad_value": layer.pad_value,
            "stride": layer.stride[0],
            "groups": layer.groups,
        }
        weights = (layer.quantized_weight().detach(), old[name])
        expected = aiwq.sample(*(aiwq.outputs(inputs[name], weight, **settings) for weight in weights))
        assert value == pytest.approx(expected, abs=1e-6, rel=1e-3), name
        assert value > 0
        padded.add(layer.pad_value)
    assert padded == {0.0, -0.375}


@pytest.mark.parametrize(
    ("name", "sampled", "thirds"),
    [
        ("torchvision/mobilenet_v3_large", 46, (15, 30)),
        ("torchvision/mobilenet_v2", 52, (17, 34)),
        ("timm/mobilenetv3_small_050", 35, (11, 23)),
    ],
)
def test_squeeze_and_excitation_and_classifiers_are_never_sampled(name: str, sampled: int, thirds: tuple[int, int]):
    """Though they are convolutions in these libraries; stem and head convolutions are. Thirds are floor(L/3), floor(2L/3)."""
    model = stock_network(name)
    rules = convert(model, **NORMALIZATION)
    ranking = meter_of(model).ranking()
    assert set(ranking) == {rule.name for rule in rules if rule.kind not in ("se", "linear")}
    assert any(rule.kind == "se" for rule in rules) == ("v3" in name)
    assert len(ranking) == sampled
    assert tuple(len(frozen_layers(ranking, share)) for share in ProfitConfig().fractions) == thirds


samples = st.lists(st.none() | st.floats(0, 3) | st.sampled_from([1.0, math.nan, math.inf]), max_size=30)


@given(samples, st.floats(0.1, 0.999), st.booleans())
def test_the_running_mean_is_the_references(values: list[float | None], decay: float, corrected: bool):
    """Above 1 is dropped, and so is what is no number; None is no sample."""
    running = RunningInstability()
    for value in values:
        running.add(value, decay)
    taken = [2.0 if value is not None and math.isnan(value) else value for value in values]
    if any(value is not None for value in taken):
        mean, dropped = aiwq.running_mean(taken, decay, corrected=corrected)
        assert running.value(decay, corrected=corrected) == pytest.approx(mean, rel=1e-9)
        assert running.dropped / (running.kept + running.dropped) == pytest.approx(dropped)
    else:
        assert (running.kept, running.dropped, running.value(decay, corrected=corrected)) == (0, 0, 0)


def test_dropped_samples_do_not_make_a_layer_stable():
    """Half of them dropped: corrected it ranks with its like, in the authors' mean far below."""
    steady, jumping = [0.5] * 20, [0.5, 2.0] * 10
    for corrected, expected in ((True, 0.5), (False, 0.5 * (1 - 0.999**10))):
        meter = filled(meter_of(tiny(4), corrected=corrected), {"steady": steady, "jumping": jumping})
        assert meter.values()["jumping"] == pytest.approx(expected)
        assert meter.dropped_shares() == {"steady": 0, "jumping": 0.5}


def test_the_ranking():
    """The most unstable first; ties by name; what was always dropped comes first, what never lived is stable."""
    given_samples = {
        "b": [0.25],
        "a": [0.25],
        "z": [0.75],
        "y": [0.0],
        "always dropped 2": [2.0, 3.0],
        "always dropped 1": [math.inf],
        "sometimes dropped": [9.0, 0.5],
        "dead": [None, None],
    }
    expected = ["always dropped 1", "always dropped 2", "z", "sometimes dropped", "a", "b", "dead", "y"]
    assert filled(meter_of(tiny(4)), given_samples).ranking() == expected
    assert filled(meter_of(tiny(4)), dict(reversed(given_samples.items()))).ranking() == expected
