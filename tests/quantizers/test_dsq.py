import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from subfour.quantizers import DSQ, PACT, Domain, DSQWeight, Quantizer
from tests.reference.dsq import dsq


def quantizer(bits: int, lower: float, upper: float, alpha: float) -> DSQ:
    made = DSQ("signed").double()
    made.bits = bits
    with torch.no_grad():
        made.lower.fill_(lower)
        made.upper.fill_(upper)
        made.alpha_raw.copy_(torch.logit(torch.tensor(alpha, dtype=torch.float64)))
    made.initialized = True
    return made


def test_a_case_by_hand():
    """2 bits, -1 .. 2: D = 1. alpha = 1/2: k = ln 3, so tanh(k/2) = 1/2 and at the middle of a bin the slope is k = ln 3."""
    ours = quantizer(2, -1.0, 2.0, 0.5)
    # A quarter above the middle 0.5: tanh(k/4) = (sqrt 3 - 1)/(sqrt 3 + 1) = 2 - sqrt 3; slope k (1 - tanh^2)
    inputs = torch.tensor([-3.0, 0.5 + 1e-12, 0.75, 0.25, 9.0], dtype=torch.float64, requires_grad=True)
    outputs = ours(inputs)
    assert outputs.tolist() == [-1, 1, 1, 0, 2]
    outputs.sum().backward()
    slope = math.log(3) * (1 - (2 - math.sqrt(3)) ** 2)
    torch.testing.assert_close(
        inputs.grad, torch.tensor([0, math.log(3), slope, slope, 0], dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_the_ends_by_hand():
    """What lies below l pulls at l alone, what lies above u at u alone."""
    ours = quantizer(2, -1.0, 2.0, 0.5)
    ours(torch.tensor([-3.0, -2.0, 9.0], dtype=torch.float64)).backward(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64))
    assert (ours.lower.grad.item(), ours.upper.grad.item()) == pytest.approx((11, 100))
    assert ours.alpha_raw.grad.item() == pytest.approx(0, abs=1e-9)


@given(st.integers(2, 8), st.floats(0.01, 0.9), st.integers(0, 2**32))
def test_matches_the_paper_in_float64(bits: int, alpha: float, seed: int):
    """Outputs and the gradients of values, both ends and alpha, away from ties."""
    generator = torch.Generator().manual_seed(seed)
    inputs, upstream = torch.randn(2, 200, generator=generator, dtype=torch.float64)
    ours = quantizer(bits, -0.8, 1.3, alpha)
    position = (inputs + 0.8) / (2.1 / ours.grid.qmax)
    assume(((2 * position - (2 * position).round()).abs() > 1e-7).all())
    reference = [ours.lower.detach().clone(), ours.upper.detach().clone(), torch.sigmoid(ours.alpha_raw.detach())]
    one, other = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    ends = [tensor.requires_grad_() for tensor in reference]
    outputs = ours(one)
    hard, soft = dsq(other, *ends, bits)
    torch.testing.assert_close(outputs, hard, rtol=1e-12, atol=1e-12)
    outputs.backward(upstream)
    soft.backward(upstream)
    d_alpha_raw = ends[2].grad * alpha * (1 - alpha)  # through the sigmoid
    for found, expected in zip(
        (one, ours.lower, ours.upper, ours.alpha_raw), (other.grad, ends[0].grad, ends[1].grad, d_alpha_raw), strict=True
    ):
        torch.testing.assert_close(found.grad, expected, rtol=1e-7, atol=1e-7)


def test_activations_start_with_their_domain():
    """From 0, -3/8 or -p to the 95th percentile that DuQ starts from; alpha at 0.2."""
    samples = torch.linspace(-0.375, 4, 1001)
    for domain, lower, upper in [("unsigned", 0.0, 3.8), ("hswish", -0.375, 3.781), ("signed", -3.781, 3.781)]:
        ours = DSQ(domain)
        ours.bits = 4
        ours.initialize(samples)
        assert ours.lower.item() == pytest.approx(lower, abs=0.01)
        assert ours.upper.item() == pytest.approx(upper, abs=0.02)
        assert torch.sigmoid(ours.alpha_raw).item() == pytest.approx(0.2)


@pytest.mark.parametrize("kind", [DSQ, PACT])
@pytest.mark.parametrize("domain", ["unsigned", "signed"])
@pytest.mark.parametrize("bits", [4, 8])
def test_activations_can_start_at_the_least_squared_error(kind: type[Quantizer], domain: Domain, bits: int):
    """As those of DuQ: lower than at the percentile."""
    samples = 2 * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    samples = samples.relu() if domain == "unsigned" else samples
    errors = []
    for start in ("least-squares", "percentile"):
        ours = kind(domain)
        ours.bits, ours.start = bits, start
        ours.initialize(samples)
        errors.append((ours(samples) - samples).square().sum())
    assert errors[0] < 0.97 * errors[1]


def test_weights_start_at_their_ends_and_below_four_bits_at_the_least_squares_share():
    """A lower error there than between the ends."""
    weight = torch.randn(32, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    ours = DSQWeight()
    for bits in (4, 8):
        ours.bits = bits
        ours.initialize(weight)
        assert (ours.lower.item(), ours.upper.item()) == (weight.min().item(), weight.max().item())
    ours.bits = 2
    wide = (ours(weight) - weight).square().sum()
    ours.initialize(weight)
    assert (ours(weight) - weight).square().sum() < 0.6 * wide


def test_the_optimizer_may_bring_the_ends_together():
    """Outputs and gradients stay finite."""
    ours = quantizer(4, 0.5, 0.5, 0.2).float()
    inputs = torch.tensor([-1.0, 0.5, 3.0], requires_grad=True)
    outputs = ours(inputs)
    outputs.sum().backward()
    for tensor in (outputs, inputs.grad, ours.lower.grad, ours.upper.grad, ours.alpha_raw.grad):
        assert tensor.isfinite().all()


def test_the_border_is_code_0_also_where_training_has_crossed_the_ends():
    ours = quantizer(4, 0.5, -0.25, 0.2)
    assert ours.offset == ours.values(torch.tensor(0.0)).item() == -0.25
