import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from subfour.quantizers import UNIQ
from tests.reference.uniq import uniq_inference, uniq_training


def fit(bits: int, weight: torch.Tensor) -> UNIQ:
    made = UNIQ().to(weight.dtype)
    made.bits = bits
    made.initialize(weight)
    return made


def test_a_case_by_hand():
    """2 bits, mean 1, deviation 2: the bins end at the quartiles, 1 -+ 2 * 0.6745, and the levels at an eighth of each side."""
    ours = fit(2, torch.tensor([3.0, -1.0]))
    # Phi^-1(1/8) = -1.15035, Phi^-1(3/8) = -0.31864
    levels = [1 - 2 * 1.15035, 1 - 2 * 0.31864, 1 + 2 * 0.31864, 1 + 2 * 1.15035]
    torch.testing.assert_close(ours.values(torch.arange(4.0)), torch.tensor(levels), rtol=1e-5, atol=1e-5)
    ends = torch.tensor([-9.0, -0.35, -0.34, 0.99, 1.01, 2.34, 2.35, 9.0])
    assert ours.codes(ends).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@given(st.integers(2, 8), st.integers(0, 2**32))
def test_evaluation_matches_the_paper_in_float64(bits: int, seed: int):
    """Each weight is the middle of its bin of equal probability."""
    weight = torch.randn(100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours = fit(bits, weight).eval()
    position = torch.special.ndtr((weight - ours.mean) / ours.std) * 2**bits
    assume(((position - position.round()).abs() > 1e-9).all())
    expected = uniq_inference(weight, ours.mean.item(), ours.std.item(), 2**bits)
    torch.testing.assert_close(ours(weight), expected, rtol=1e-8, atol=1e-8)


@given(st.integers(2, 8), st.integers(0, 2**32))
def test_training_matches_the_paper_in_float64(bits: int, seed: int):
    """Weights under the noise that torch draws, and their gradient: 1 where Phi is left and entered at one place."""
    weight = torch.randn(100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    ours = fit(bits, weight.detach())
    torch.manual_seed(seed)
    outputs = ours(weight)
    torch.manual_seed(seed)
    noise = (torch.rand(100, dtype=torch.float64) * 2 - 1) / 2 ** (bits + 1)
    mean, std, k = ours.mean.item(), ours.std.item(), 2**bits
    torch.testing.assert_close(outputs, uniq_training(weight.detach(), mean, std, k, noise), rtol=1e-7, atol=1e-7)
    outputs.sum().backward()
    step = 1e-5
    up, down = (uniq_training(weight.detach() + d, mean, std, k, noise) for d in (step, -step))
    slope = (up - down) / (2 * step)
    bends = (up == outputs.max()) != (down == outputs.max())  # the clip begins between the two
    bends |= (up == outputs.min()) != (down == outputs.min())
    torch.testing.assert_close(weight.grad[~bends], slope[~bends], rtol=1e-3, atol=1e-4)


def test_it_has_no_integer_form_and_says_so():
    """Whoever asks for the constants of the one form is told why there are none."""
    with pytest.raises(ValueError, match="quantizer: uniq has no integer form, its 2\\^n levels are not evenly spaced"):
        fit(4, torch.randn(10)).params()


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_bins_middle_is_in_the_bin(bits: int):
    """For each code: what a model file relies on."""
    ours = fit(bits, torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e-2 + 3e-3)
    codes = torch.arange(2.0**bits)
    assert ours.codes(ours.bin_centres(codes)).equal(codes)


def test_moments_follow_the_weights_in_training_and_rest_in_evaluation():
    weight = torch.randn(50, generator=torch.Generator().manual_seed(0))
    ours = fit(4, weight)
    ours(3 * weight)
    torch.testing.assert_close(ours.std, 3 * weight.std(unbiased=False))
    ours.eval()
    before = ours.std.clone()
    ours(weight)
    assert ours.std.equal(before)
    assert list(ours.parameters()) == []
