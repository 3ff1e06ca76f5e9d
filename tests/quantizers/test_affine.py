import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from subfour.quantizers import Affine, AffineWeight
from subfour.quantizers.affine import DECAY
from tests.reference.affine import affine, affine_gradient, moving_average


def with_range(made: Affine, bits: int, minimum: float, maximum: float) -> Affine:
    made.double().eval().bits = bits
    made.load_state_dict(
        {"minimum": torch.tensor(minimum, dtype=torch.float64), "maximum": torch.tensor(maximum, dtype=torch.float64)}
    )
    return made


def test_a_case_by_hand():
    """2 bits, -1 .. 2: scale 1, zero point 1: codes and values; outside the range no gradient."""
    ours = with_range(Affine("signed"), 2, -1.0, 2.0)
    inputs = torch.tensor([-5.0, -0.6, 0.4, 1.6, 7.0], dtype=torch.float64, requires_grad=True)
    assert ours.params().zero_point == 1
    assert ours.codes(inputs.detach()).tolist() == [0, 0, 1, 3, 3]
    outputs = ours(inputs)
    assert outputs.tolist() == [-1, -1, 0, 2, 2]
    outputs.sum().backward()
    assert inputs.grad.tolist() == [0, 1, 1, 1, 0]


def test_the_case_of_the_corrections():
    """4 bits, -3.1 .. 4.2: code 0 is -2.92, not zero; zero is code 6 exactly."""
    ours = with_range(Affine("signed"), 4, -3.1, 4.2)
    assert ours.values(torch.tensor(0.0)).item() == pytest.approx(-2.92)
    assert ours.params().zero_point == 6
    assert ours.values(torch.tensor(6.0)).item() == ours.offset == 0


@pytest.mark.parametrize("make", [lambda: Affine("hswish"), AffineWeight])
@given(st.integers(2, 8), st.floats(-3, 0), st.floats(0.1, 3), st.integers(0, 2**32))
def test_matches_the_paper_in_float64(make: type[Affine], bits: int, minimum: float, maximum: float, seed: int):
    """Outputs and gradient, away from ties."""
    generator = torch.Generator().manual_seed(seed)
    inputs, upstream = 2 * torch.randn(2, 200, generator=generator, dtype=torch.float64)
    ours = with_range(make(), bits, minimum, maximum)
    position = inputs / ours.params().scale
    assume(((2 * position - (2 * position).round()).abs() > 1e-9).all())
    assume(abs((-minimum / ours.params().scale.item()) % 1 - 0.5) > 1e-9)
    numbers = minimum, maximum, ours.grid.qmin, ours.grid.qmax
    inputs.requires_grad_()
    outputs = ours(inputs)
    torch.testing.assert_close(outputs, affine(inputs.detach(), *numbers), rtol=1e-12, atol=1e-12)
    outputs.backward(upstream)
    torch.testing.assert_close(inputs.grad, affine_gradient(inputs.detach(), *numbers, g=upstream))


def test_activation_ranges_are_running_means_in_training_and_rest_in_evaluation():
    """Of minimum and maximum of each batch, 0 included."""
    ours = Affine("signed").double()
    ours.bits = 4
    batches = [torch.tensor(values, dtype=torch.float64) for values in ([-2.0, 4.0], [-1.0, 9.0], [3.0, 5.0], [-8.0, -1.0])]
    ours.initialize(batches[0])
    for batch in batches[1:]:
        ours(batch)
    expected = moving_average([(batch.min().item(), batch.max().item()) for batch in batches], DECAY)
    assert (ours.minimum.item(), ours.maximum.item()) == pytest.approx(expected)
    ours.eval()
    ours(100 * batches[0])
    assert (ours.minimum.item(), ours.maximum.item()) == pytest.approx(expected)


def test_weight_ranges_follow_the_weights_in_training_and_rest_in_evaluation():
    ours = AffineWeight()
    ours.bits = 4
    weight = torch.tensor([-0.5, 0.25, 1.0])
    ours.initialize(weight)
    ours(2 * weight)
    assert (ours.minimum.item(), ours.maximum.item()) == (-1, 2)
    ours.eval()
    ours(weight)
    assert (ours.minimum.item(), ours.maximum.item()) == (-1, 2)


def test_nothing_is_learned():
    assert list(Affine("unsigned").parameters()) == []
