import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from subfour.quantizers import LSQ, LSQPlus, LSQPlusWeight, LSQWeight
from tests.reference.lsq import lsq, lsq_gradients, lsq_plus, lsq_plus_gradients

widths = st.integers(2, 8)
seeds = st.integers(0, 2**32)


def with_step(made: LSQ, bits: int, step: float, beta: float | None = None) -> LSQ:
    """Return a quantizer with a given step and offset, in float64."""
    made.double().bits = bits
    with torch.no_grad():
        made.step.fill_(step)
        made.step_bits.fill_(bits)
        if beta is not None:
            made.beta.fill_(beta)
    made.initialized = True
    return made


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def away_from_edges(positions: Tensor) -> None:
    """Ties and the ends of the grid are of measure zero; skip a case that comes near one."""
    assume(((2 * positions - (2 * positions).round()).abs() > 1e-9).all())


def test_a_case_by_hand():
    """2 bits, s = 1/2, signed: codes -2 .. 1; N = 4 and Qp = 1, so the gradient of s is halved."""
    # v/s = [-3, -0.8, 0.4, 5] -> [-2, -1, 0, 1]; d/ds = [-2, -1 + 0.8, -0.4, 1]
    ours = with_step(LSQWeight(), 2, 0.5)
    inputs = torch.tensor([-1.5, -0.4, 0.2, 2.5], dtype=torch.float64, requires_grad=True)
    outputs = ours(inputs)
    assert outputs.tolist() == [-1, -0.5, 0, 0.5]
    outputs.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64))
    assert inputs.grad.tolist() == [0, 10, 100, 0]
    assert ours.step.grad.item() == pytest.approx((-2 - 2 - 40 + 1000) / 2)


def test_the_offset_by_hand():
    """2 bits, s = 1, beta = -1: levels -1 .. 2; 4 features of one image, Qp = 3, so gradients are over sqrt 12."""
    # (x + 1)/s = [-0.5, 0.7, 2.2, 4] -> [0, 1, 2, 3]; d/dbeta = [1, 0, 0, 1]; d/ds = [0, 0.3, -0.2, 3]
    ours = with_step(LSQPlus("signed"), 2, 1.0, -1.0)
    inputs = torch.tensor([[-1.5, -0.3, 1.2, 3.0]], dtype=torch.float64, requires_grad=True)
    outputs = ours(inputs)
    assert outputs.tolist() == [[-1, 0, 1, 2]]
    outputs.backward(torch.tensor([[1.0, 10.0, 100.0, 1000.0]], dtype=torch.float64))
    assert inputs.grad.tolist() == [[0, 10, 100, 0]]
    assert ours.step.grad.item() == pytest.approx((3 - 20 + 3000) / math.sqrt(12))
    assert ours.beta.grad.item() == pytest.approx(1001 / math.sqrt(12))


@pytest.mark.parametrize("domain", ["unsigned", "hswish", "signed"])
@given(widths, seeds)
def test_activations_match_the_paper_in_float64(domain: str, bits: int, seed: int):
    """Outputs and gradients; N counts the features of one image."""
    inputs, upstream = normal(seed, 2, 3, 4, 5, 5)
    Qn, Qp = (2 ** (bits - 1), 2 ** (bits - 1) - 1) if domain == "signed" else (0, 2**bits - 1)
    ours = with_step(LSQ(domain), bits, 2 / Qp)
    step = ours.step.detach()
    away_from_edges(inputs / step)
    inputs.requires_grad_()
    outputs = ours(inputs)
    torch.testing.assert_close(outputs, lsq(inputs.detach(), step, Qn, Qp), rtol=1e-12, atol=1e-12)
    outputs.backward(upstream)
    d_inputs, d_step = lsq_gradients(inputs.detach(), step, Qn, Qp, g=upstream, N=100)
    torch.testing.assert_close(inputs.grad, d_inputs)
    torch.testing.assert_close(ours.step.grad, d_step)


@pytest.mark.parametrize("domain", ["hswish", "signed"])
@given(widths, seeds)
def test_the_offset_matches_the_paper_in_float64(domain: str, bits: int, seed: int):
    """Outputs and the gradients of values, step and offset."""
    inputs, upstream = normal(seed, 2, 3, 4, 5, 5)
    Qp = 2**bits - 1
    ours = with_step(LSQPlus(domain), bits, 2 / Qp, -0.7)
    step, beta = ours.step.detach(), ours.beta.detach()
    away_from_edges((inputs - beta) / step)
    inputs.requires_grad_()
    outputs = ours(inputs)
    torch.testing.assert_close(outputs, lsq_plus(inputs.detach(), step, beta, Qp), rtol=1e-12, atol=1e-12)
    outputs.backward(upstream)
    expected = lsq_plus_gradients(inputs.detach(), step, beta, Qp, g=upstream, N=100)
    for found, reference in zip((inputs, ours.step, ours.beta), expected, strict=True):
        torch.testing.assert_close(found.grad, reference)


@pytest.mark.parametrize("make", [LSQWeight, LSQPlusWeight])
@given(widths, seeds)
def test_weights_match_the_paper_per_layer_and_per_channel(make: type[LSQWeight], bits: int, seed: int):
    """A step per channel is a layer per channel: the same outputs and gradients, N counting the channel's weights."""
    weight, upstream = normal(seed, 2, 4, 3, 3, 3)
    Qn, Qp = 2 ** (bits - 1), 2 ** (bits - 1) - 1
    whole, parted = make().double(), make(range_shape=(4, 1, 1, 1)).double()
    for ours in (whole, parted):
        ours.bits = bits
        ours.initialize(weight)
        away_from_edges(weight / ours.step.detach())
        ours.step.grad = None
        one = weight.clone().requires_grad_()
        outputs = ours(one)
        outputs.backward(upstream)
        rows = [(slice(None), ours.step.detach(), 108)] if ours is whole else [(c, ours.step.detach()[c], 27) for c in range(4)]
        for row, step, count in rows:
            torch.testing.assert_close(outputs[row], lsq(weight[row], step, Qn, Qp), rtol=1e-12, atol=1e-12)
            d_weight, d_step = lsq_gradients(weight[row], step, Qn, Qp, g=upstream[row], N=count)
            torch.testing.assert_close(one.grad[row], d_weight)
            found = ours.step.grad if ours is whole else ours.step.grad[row]
            torch.testing.assert_close(found.sum(), d_step)


def test_steps_start_where_the_papers_say():
    """LSQ: 2 E|v| / sqrt(Qp); LSQ+ weights: three deviations over 2^(b-1)."""
    weight = torch.tensor([3.0, -1.0, 3.0, -1.0])  # E|v| = 2, mean 1, deviation 2
    for make, bits, step in [(LSQWeight, 2, 4.0), (LSQWeight, 3, 4 / 3**0.5), (LSQPlusWeight, 2, 3.5), (LSQPlusWeight, 3, 1.75)]:
        ours = make()
        ours.bits = bits
        ours.initialize(weight)
        assert ours.step.item() == pytest.approx(step)
    ours = LSQ("hswish")
    ours.bits = 2
    ours.initialize(torch.tensor([-0.3, -0.1, 4.0, 2.0]))  # the negative part is clipped: E = 1.5
    assert ours.step.item() == pytest.approx(3 / 3**0.5)


@given(st.integers(2, 4), seeds)
def test_the_start_of_the_offset_beats_minimum_and_maximum(bits: int, seed: int):
    """In squared error; and it finds an exact fit."""
    samples = torch.nn.functional.hardswish(2 * normal(seed, 2000).float())
    ours = LSQPlus("hswish")
    ours.bits = bits
    ours.initialize(samples)
    plain = with_step(LSQPlus("hswish"), bits, float(samples.max() - samples.min()) / ours.grid.qmax, float(samples.min()))
    assert (ours(samples) - samples).square().mean() < (plain(samples.double()) - samples).square().mean()
    levels = torch.tensor([-0.25, 0.75, 1.75, 2.75] * 9)
    ours.bits = 2
    ours.initialize(levels)
    torch.testing.assert_close(ours(levels), levels)


def test_relu_outputs_have_no_offset():
    """0 keeps its code; LSQ+ is LSQ with another start there."""
    ours = LSQPlus("unsigned")
    ours.bits = 2
    ours.initialize(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert [name for name, _ in ours.named_parameters()] == ["step"]
    assert ours(torch.tensor([0.0, 1.2])).tolist() == pytest.approx([0, 1])
    assert ours.offset == 0


@pytest.mark.parametrize("make", [lambda: LSQ("unsigned"), lambda: LSQPlus("hswish"), LSQWeight])
def test_a_step_belongs_to_one_width(make: type[LSQ]):
    """At another it has none, also after it was saved and read back; at 32 bits and back it is as it was."""
    ours, samples = make(), torch.linspace(-0.3, 4, 50)
    ours.bits = 4
    ours.initialize(samples)
    outputs = ours(samples)
    ours.bits = 3
    with pytest.raises(RuntimeError, match="no ranges yet"):
        ours(samples)
    ours.bits = 32
    ours.bits = 4
    assert ours(samples).equal(outputs)
    read = make()
    read.bits = 3
    read.load_state_dict(ours.state_dict())
    assert not read.initialized
    read.bits = 4
    assert read(samples).equal(outputs)


def test_a_channel_without_weights_gets_the_largest_step():
    """Not a step of 0."""
    ours = LSQWeight(range_shape=(3, 1))
    ours.bits = 2
    ours.initialize(torch.tensor([[1.0, -1.0], [0.0, 0.0], [2.0, -2.0]]))
    assert ours.step.flatten().tolist() == [2, 4, 4]


@pytest.mark.parametrize(("step", "expected"), [(0.0, [0, 0, 0, 0]), (-0.5, [-1, 0, 0.5, 3])])
def test_the_optimizer_may_cross_zero(step: float, expected: list[float]):
    """Outputs and gradients stay finite, and |s| is the step."""
    ours = with_step(LSQWeight(), 4, step)
    inputs = torch.tensor([-1.0, 0.0, 0.6, 3.0], dtype=torch.float64, requires_grad=True)
    outputs = ours(inputs)
    outputs.sum().backward()
    assert outputs.tolist() == pytest.approx(expected)
    assert inputs.grad.isfinite().all()
    assert ours.step.grad.isfinite()
