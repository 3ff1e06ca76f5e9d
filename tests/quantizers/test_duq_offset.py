import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from subfour.quantizers import DuQ, DuQOffset, DuQOffsetWeight
from tests.reference.duq import duq_all_codes, duq_offset, softplus

widths = st.sampled_from([2, 3, 4, 5, 8])
seeds = st.integers(0, 2**32)


def made(bits: int, a: float, c: float, b: float) -> DuQOffset:
    quantizer = DuQOffset("signed").double()
    quantizer.bits = bits
    quantizer.set_ranges(torch.tensor(a), torch.tensor(c))
    with torch.no_grad():
        quantizer.shift.fill_(b)
    return quantizer


def test_four_values_at_two_bits_where_duq_has_three():
    """A = 3, c = 6, b = -1: codes rise at -0.5, 0.5 and 1.5, values are two apart."""
    inputs = torch.tensor([-9.0, -0.6, -0.4, 0.6, 1.4, 1.6, 9.0], dtype=torch.float64)
    assert made(2, 3.0, 6.0, -1.0)(inputs).tolist() == pytest.approx([-1, -1, 1, 3, 3, 5, 5])
    weight = DuQOffsetWeight()
    weight.bits = 2
    weight.set_ranges(torch.tensor(1.0), torch.tensor(2.0))
    assert weight(torch.tensor([-9.0, -1.4, -0.6, 0.4, 0.6, 9.0])).tolist() == pytest.approx([-4, -2, -2, 0, 2, 2])


@given(widths, seeds)
def test_matches_its_equation_in_float64(bits: int, seed: int):
    """Outputs and the gradients of all three numbers equal a literal transcription and its autograd."""
    generator = torch.Generator().manual_seed(seed)
    inputs, upstream = torch.randn(2, 200, generator=generator, dtype=torch.float64)
    a, c, b = (torch.rand(3, generator=generator, dtype=torch.float64) * 3 + 0.1).tolist()
    ours = made(bits, a, c, b - 2)
    learned = (ours.input_range_raw, ours.output_range_raw, ours.shift)
    raw = [value.detach().clone().requires_grad_() for value in learned]
    positions = (inputs - raw[2]) / softplus(raw[0]) * (2**bits - 1)
    assume(((2 * positions - (2 * positions).round()).abs() > 1e-9).all())
    one, other = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    outputs, expected = ours(one), duq_offset(other, softplus(raw[0]), softplus(raw[1]), raw[2], bits)
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    outputs.backward(upstream)
    expected.backward(upstream)
    for found, reference in zip((one, *learned), (other, *raw), strict=True):
        torch.testing.assert_close(found.grad, reference.grad, rtol=1e-9, atol=1e-9)


@given(widths, seeds)
def test_weights_match_their_equation_in_float64(bits: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(200, generator=generator, dtype=torch.float64)
    ours = DuQOffsetWeight().double()
    ours.bits = bits
    ours.set_ranges(*(torch.rand(2, generator=generator, dtype=torch.float64) * 3 + 0.1))
    expected = duq_all_codes(weight, softplus(ours.input_range_raw), softplus(ours.output_range_raw), bits)
    torch.testing.assert_close(ours(weight), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("domain", ["unsigned", "hswish"])
def test_other_domains_are_duq_s(domain: str):
    """Nothing to learn beside the ranges, and the same values."""
    quantizers: list[nn.Module] = [DuQ(domain), DuQOffset(domain)]
    values = torch.nn.functional.hardswish(torch.randn(500, generator=torch.Generator().manual_seed(0)))
    outputs: list[Tensor] = []
    for quantizer in quantizers:
        quantizer.bits = 4
        quantizer.initialize(values)
        outputs.append(quantizer(values))
    assert torch.equal(*outputs)
    assert [*quantizers[0].state_dict()] == [*quantizers[1].state_dict()]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_fits_lopsided_values_better_than_duq(bits: int):
    """The mean squared error of the start, on values of which most are above zero."""
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) + 1
    errors = []
    for quantizer in (DuQ("signed"), DuQOffset("signed")):
        quantizer.bits = bits
        quantizer.initialize(values)
        errors.append((quantizer(values) - values).square().mean().item())
    assert errors[1] < 0.7 * errors[0]
