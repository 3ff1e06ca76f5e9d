import pytest
import torch
from torch import Tensor, nn

from subfour.train.average import WeightAverage

DECAY = 0.9


def small_model() -> nn.Sequential:
    """Return a model with weights, batch-norm statistics and a counter."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return model.to(memory_format=torch.channels_last)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def disturb(model: nn.Module, seed: int) -> None:
    """Change every entry of the state."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator))
            else:
                value.add_(seed)


def test_the_average_is_its_formula():
    """That is decay * average + (1 - decay) * state, in float64: for every floating entry; counters are copied."""
    model = small_model()
    average = WeightAverage(model, DECAY)
    expected = {name: value.double() for name, value in snapshot(model).items()}
    for step in range(1, 30):
        disturb(model, step)
        average.update()
        expected = {name: DECAY * expected[name] + (1 - DECAY) * value.double() for name, value in snapshot(model).items()}
    counter = expected.pop("1.num_batches_tracked")
    assert counter != average.state["1.num_batches_tracked"] == model[1].num_batches_tracked
    for name, value in expected.items():
        assert torch.allclose(average.state[name].double(), value, rtol=0, atol=1e-6), name


def test_the_model_is_only_read():
    """Its state is the same before and after."""
    model = small_model()
    average = WeightAverage(model, DECAY)
    disturb(model, 1)
    before = snapshot(model)
    average.update()
    average.fill()
    average.restart()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_is_lent_and_comes_back_bit_for_bit():
    """Also after an error, and with the counters."""
    model = small_model()
    average = WeightAverage(model, DECAY)
    disturb(model, 1)
    average.update()
    own = snapshot(model)
    with average.lent():
        assert all(torch.equal(value, average.state[name]) for name, value in model.state_dict().items())
        assert not torch.equal(model[0].weight, own["0.weight"])
    with pytest.raises(KeyError), average.lent():
        raise KeyError
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_changes_to_a_borrowed_model_do_not_reach_the_average():
    """Its tensors are copies: batch-norm re-estimation must say explicitly that it wants to keep what it found."""
    model = small_model()
    average = WeightAverage(model, DECAY)
    before = {name: value.clone() for name, value in average.state.items()}
    with average.lent():
        disturb(model, 1)
    assert all(torch.equal(average.state[name], value) for name, value in before.items())
    with average.lent():
        disturb(model, 1)
        average.restart()
    assert not torch.equal(average.state["0.weight"], before["0.weight"])


def test_it_restarts_from_the_present_weights():
    """Nothing of the past is left."""
    model = small_model()
    average = WeightAverage(model, DECAY)
    disturb(model, 1)
    average.restart()
    assert all(torch.equal(value, average.state[name]) for name, value in model.state_dict().items())
    disturb(model, 2)
    assert not torch.equal(average.state["0.weight"], model[0].weight)  # a copy, not the same tensor


def test_what_had_no_value_is_filled_and_nothing_else():
    """Ranges are NaN until they are calibrated; an average of NaN would stay NaN for ever."""
    model = small_model()
    with torch.no_grad():
        model[1].weight[:2] = float("nan")
    average = WeightAverage(model, DECAY)
    disturb(model, 1)
    with torch.no_grad():
        model[1].weight[:2] = 7.0
    before = {name: value.clone() for name, value in average.state.items()}
    average.fill()
    assert average.state["1.weight"].tolist() == [7.0, 7.0, *before["1.weight"][2:].tolist()]
    assert all(torch.equal(value, before[name]) for name, value in average.state.items() if name != "1.weight")


def test_a_given_state_is_taken_over():
    """As from a checkpoint; the given tensors are not kept."""
    model = small_model()
    average = WeightAverage(model, DECAY)
    disturb(model, 1)
    given = snapshot(model)
    average.load(given)
    assert all(torch.equal(value, given[name]) for name, value in average.state.items())
    given["0.weight"].zero_()
    assert not torch.equal(average.state["0.weight"], given["0.weight"])
