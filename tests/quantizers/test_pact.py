from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from subfour.quantizers import PACT, DuQ
from tests.reference.pact import pact, pact_gradients, pact_signed, pact_signed_gradients

Transcription = Callable[..., Any]

widths = st.integers(2, 8)
seeds = st.integers(0, 2**32)


def quantizer(domain: str, bits: int, alpha: float) -> PACT:
    made = PACT(domain)
    made.bits = bits
    made.load_state_dict({"alpha": torch.tensor(alpha)})
    return made


def test_a_case_by_hand():
    """2 bits, alpha = 3: the step is 1; outputs and gradients on paper."""
    ours = quantizer("unsigned", 2, 3.0)
    inputs = torch.tensor([-1.0, 0.0, 0.4, 1.6, 2.9, 3.0, 7.0], requires_grad=True)
    outputs = ours(inputs)
    assert outputs.tolist() == [0, 0, 0, 2, 3, 3, 3]
    outputs.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]))
    assert inputs.grad.tolist() == [0, 0, 4, 8, 16, 0, 0]
    assert ours.alpha.grad == 96  # [x >= alpha]: 32 + 64, and nothing of the rounding errors below


def test_a_signed_case_by_hand():
    """2 bits, alpha = 1: ternary; both ends pull at alpha, with opposite signs."""
    ours = quantizer("signed", 2, 1.0)
    inputs = torch.tensor([-3.0, -0.6, 0.4, 1.0], requires_grad=True)
    outputs = ours(inputs)
    assert outputs.tolist() == [-1, -1, 0, 1]
    outputs.backward(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    assert inputs.grad.tolist() == [0, 2, 4, 0]
    assert ours.alpha.grad == 7


@pytest.mark.parametrize(
    ("domain", "forward", "gradients"),
    [("unsigned", pact, pact_gradients), ("signed", pact_signed, pact_signed_gradients)],
)
@given(widths, seeds)
def test_matches_the_paper_in_float64(domain: str, forward: Transcription, gradients: Transcription, bits: int, seed: int):
    """Outputs equal Eq. 1 and 2, gradients Eq. 3, away from rounding ties."""
    generator = torch.Generator().manual_seed(seed)
    inputs, upstream = torch.randn(2, 200, generator=generator, dtype=torch.float64)
    ours = quantizer(domain, bits, 1.0).double()
    alpha = torch.rand((), generator=generator, dtype=torch.float64) + 0.5
    ours.load_state_dict({"alpha": alpha})
    position = inputs / alpha * ours.grid.qmax
    assume(((position - position.floor() - 0.5).abs() > 1e-9).all())
    inputs.requires_grad_()
    outputs = ours(inputs)
    torch.testing.assert_close(outputs, forward(inputs.detach(), alpha, bits), rtol=1e-12, atol=1e-12)
    outputs.backward(upstream)
    d_inputs, d_alpha = gradients(inputs.detach(), alpha, upstream)
    torch.testing.assert_close(inputs.grad, d_inputs)
    torch.testing.assert_close(ours.alpha.grad, d_alpha)


@given(seeds)
def test_rounding_does_not_reach_alpha(seed: int):
    """Where nothing is clipped, alpha gets no gradient, however large the rounding errors."""
    inputs = torch.rand(100, generator=torch.Generator().manual_seed(seed))
    ours = quantizer("unsigned", 2, 1.5)
    ours(inputs).sum().backward()
    assert ours.alpha.grad == 0


@pytest.mark.parametrize("alpha", [1e-38, 1e-20, 1.0, 1e20, 3e38])
@pytest.mark.parametrize("domain", ["unsigned", "signed"])
def test_no_range_overflows(domain: str, alpha: float):
    """Outputs and gradients are finite."""
    ours = quantizer(domain, 8, alpha)
    inputs = torch.tensor([0.0, 1e-38, -1.0, 1.0, alpha, alpha / 2, 3e38, -3e38], requires_grad=True)
    outputs = ours(inputs)
    outputs.sum().backward()
    for tensor in (outputs, inputs.grad, ours.alpha.grad):
        assert tensor.isfinite().all()


def test_alpha_starts_where_duq_starts():
    """The 95th percentile: both methods have the same schedule."""
    samples = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for domain in ("unsigned", "signed"):
        ours, duq = PACT(domain), DuQ(domain)
        ours.initialize(samples)
        duq.initialize(samples)
        torch.testing.assert_close(ours.alpha.detach(), duq.input_range.detach())


def test_hswish_outputs_lose_their_negative_part():
    """What DuQ is compared with in the supplement's Fig. 2."""
    ours = quantizer("hswish", 4, 1.5)
    assert ours(torch.tensor([-0.375, -0.1])).tolist() == [0, 0]
    assert ours.offset == 0
