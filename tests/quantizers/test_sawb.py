import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from subfour.quantizers import SAWB
from tests.reference.sawb import sawb

WEIGHTS = torch.tensor([1.0, -7.0, -1.0, 7.0])
"""E[w^2] = 25 and E|w| = 4, so that alpha = 5 c1 + 4 c2."""


def fit(bits: int, weight: Tensor) -> SAWB:
    made = SAWB().to(weight.dtype)
    made.bits = bits
    made.initialize(weight.detach())
    return made


@pytest.mark.parametrize(("bits", "alpha"), [(2, 6.16), (3, 9.977), (4, 12.2), (5, 14.14), (8, 18.64)])
def test_alpha_by_hand(bits: int, alpha: float):
    """5 c1 + 4 c2, on paper."""
    torch.testing.assert_close(fit(bits, WEIGHTS).alpha, torch.tensor(alpha), rtol=1e-5, atol=0)


def test_a_case_by_hand():
    """2 bits: a weight becomes 0 or the clip, and gets no gradient beyond it."""
    weight = torch.tensor([0.0] * 15 + [8.0], requires_grad=True)  # alpha = 2.6 * 2 - 1.71 * 0.5 = 4.345
    outputs = fit(2, weight)(weight)
    torch.testing.assert_close(outputs, torch.tensor([0.0] * 15 + [4.345]))
    outputs.sum().backward()
    assert weight.grad.tolist() == [1] * 15 + [0]


@given(st.sampled_from([2, 3, 4, 5, 8]), st.integers(0, 2**32))
def test_matches_the_paper_in_float64(bits: int, seed: int):
    """Quantized weights equal a literal transcription."""
    weight = torch.randn(500, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(fit(bits, weight)(weight), sawb(weight, bits), rtol=1e-12, atol=1e-12)


def test_alpha_follows_the_weights_in_training_and_rests_in_evaluation():
    """What is evaluated and exported is what was trained last."""
    ours = fit(4, WEIGHTS)
    ours(2 * WEIGHTS)
    torch.testing.assert_close(ours.alpha, torch.tensor(24.4))
    ours.eval()
    before = ours.alpha.clone()
    outputs = ours(WEIGHTS)
    assert ours.alpha.equal(before)
    torch.testing.assert_close(outputs, (WEIGHTS * 7 / 24.4).round() * 24.4 / 7)


def test_nothing_is_learned():
    """The clip follows from the weights."""
    assert list(SAWB().parameters()) == []


@pytest.mark.parametrize("bits", [6, 7])
def test_a_width_without_coefficients_is_refused(bits: int):
    """None were published for 6 and 7 bits."""
    with pytest.raises(ValueError, match=f"SAWB has no coefficients for {bits} bits; choose from"):
        fit(bits, WEIGHTS)
    trains = fit(8, WEIGHTS)
    trains.bits = bits
    with pytest.raises(ValueError, match=f"SAWB has no coefficients for {bits} bits; choose from"):
        trains(WEIGHTS)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_the_clip_of_weights_of_one_magnitude_is_that_magnitude(bits: int):
    """From 4 bits up c1 + c2 < 0: the fit alone would give a negative clip."""
    weight = torch.tensor([2.0, -2.0])
    quantizer = fit(bits, weight)
    assert quantizer.alpha >= 2
    if bits >= 3:
        torch.testing.assert_close(quantizer(weight), weight)


@pytest.mark.parametrize("weight", [torch.zeros(4), torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])])
def test_weights_without_a_clip_are_refused(weight: Tensor):
    """No grid has a step of zero, or one that is not finite."""
    with pytest.raises(ValueError, match="weight: SAWB's clip is"):
        fit(4, weight)
