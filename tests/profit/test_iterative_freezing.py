import pytest
import torch
from torch import nn

from subfour.layers import quant_layers
from subfour.profit.config import OscillationConfig
from subfour.profit.iterative_freezing import IterativeFreezing
from tests.profit.quantized_networks import tiny

CONFIG = OscillationConfig(momentum=0.5, threshold_start=0.7, threshold_end=0.3)


def network() -> tuple[nn.Module, IterativeFreezing]:
    """Return a network that acts from its first step on, and its method."""
    model = tiny(4, quantizer="lsq")
    method = IterativeFreezing(model, CONFIG)
    method.share_done = 0.0
    return model, method


def put(model: nn.Module, code: float) -> torch.Tensor:
    """Move one weight of the first layer to a code, as an optimizer would, and return where it lies."""
    layer = next(iter(quant_layers(model).values()))
    with torch.no_grad():
        layer.weight.view(-1)[0] = code * layer.weight_quantizer.step
    return layer.weight.view(-1)[0]


def test_a_case_by_hand():
    """M = 1/2: codes 0 1 0 1: no oscillation when it first moves, then f = 1/2, then 3/4 > 0.7: frozen at the mean's code."""
    # The first code starts the mean at 0; then 0.5, 0.25, 0.625, which rounds to 1.
    model, method = network()
    name, layer = next(iter(quant_layers(model).items()))
    expected = [(0, 0, 0), (1, 0, 0.5), (0, 0.5, 0.25), (1, 0.75, 0.625)]
    for code, frequency, mean in expected:
        put(model, code)
        method.after_update()
        tracked = {key: value.view(-1)[0].item() for key, value in method.tracked[name].items()}
        assert (tracked["frequency"], tracked["mean"]) == (frequency, mean)
        assert tracked["frozen"] == (frequency > 0.7)
    put(model, -3.0)
    method.after_update()
    assert layer.weight_quantizer.codes(layer.weight).view(-1)[0] == 1
    assert method.tracked[name]["frozen"].sum() == 1


def test_moving_on_in_one_direction_is_no_oscillation():
    """0 1 2 3: nothing freezes; nor does what stands still."""
    model, method = network()
    for code in (0, 1, 2, 3, 3, 3):
        put(model, code)
        method.after_update()
    assert not any(tracked["frequency"].any() or tracked["frozen"].any() for tracked in method.tracked.values())


def test_a_frozen_code_survives_a_moving_step_and_a_stabilize_phase():
    """The weight follows the step; where no weight trains, nothing is counted."""
    model, method = network()
    name, layer = next(iter(quant_layers(model).items()))
    for code in (0, 1, 0, 1):
        put(model, code)
        method.after_update()
    layer.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in method.tracked[name].items()}
    with torch.no_grad():
        layer.weight_quantizer.step.mul_(1.7)
    method.after_update()
    assert layer.weight.view(-1)[0] == layer.weight_quantizer.step
    assert all(torch.equal(value, before[key]) for key, value in method.tracked[name].items())


def test_the_threshold_falls_by_a_cosine():
    _, method = network()
    thresholds = []
    for progress in (0.0, 0.5, 1.0):
        method.share_done = progress
        thresholds.append(method.threshold)
    assert thresholds == pytest.approx([0.7, 0.5, 0.3])


def test_outside_its_phases_it_does_nothing():
    _, method = network()
    method.share_done = None
    method.after_update()
    assert method.tracked == {}
    assert method.state() == {}


def test_its_state_goes_on_where_it_was():
    """Read back into another network's method: the same counts, and the same after a further step."""
    model, method = network()
    for code in (0, 1, 0):
        put(model, code)
        method.after_update()
    other, again = network()
    again.load_state({name: value.contiguous() for name, value in method.state().items()})
    for one, its in ((model, method), (other, again)):
        put(one, 1)
        its.after_update()
    states = method.state(), again.state()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
