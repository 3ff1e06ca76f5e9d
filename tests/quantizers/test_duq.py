from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.quantizers import DuQ
from subfour.quantizers.base import RangeStart, positive_percentile
from subfour.quantizers.duq import DuQWeight, softplus_inverse
from tests import oracles
from tests.reference.duq import duq, softplus

RANGES = (1e-38, 1e-30, 1e-8, 0.17, 1.7, 19.0, 21.0, 88.0, 1e8, 3e38)

domains = st.sampled_from(["unsigned", "hswish", "signed"])
widths = st.integers(2, 8)
seeds = st.integers(0, 2**32)


def quantizer(domain: str, bits: int, a: float, c: float) -> DuQ:
    made = DuQ(domain)
    made.bits = bits
    made.set_ranges(torch.tensor(a), torch.tensor(c))
    return made


@pytest.mark.parametrize("case", oracles.cases("quantizers"))
def test_matches_the_authors_code(case: dict[str, Any]):
    """Outputs and the gradients of values and raw ranges, as recorded."""
    before, domain = {
        "relu": (F.relu, "unsigned"),
        "hswish": (F.hardswish, "hswish"),
        "symmetric": (torch.clone, "signed"),
        "weight": (torch.clone, "signed"),
    }[case["kind"]]
    ours = quantizer(domain, case["bits"], case["a"], case["c"])
    inputs = oracles.tensor(case, "x").requires_grad_()
    outputs = ours(before(inputs))
    assert (outputs - oracles.tensor(case, "y")).abs().max() <= 1e-6
    outputs.backward(oracles.tensor(case, "g"))
    expected = [oracles.tensor(case, "dx"), torch.tensor(case["d_a_raw"]), torch.tensor(case["d_c_raw"])]
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for found, gradient in zip((inputs, ours.input_range_raw, ours.output_range_raw), expected, strict=True):
        oracles.assert_gradients_close(found.grad, gradient, largest)


@pytest.mark.parametrize("case", oracles.cases("negative_padding_conv"))
def test_matches_the_authors_negative_padding(case: dict[str, Any]):
    """A convolution of an h-swish output, padded with the offset, and a quantized weight."""
    weight = quantizer("signed", case["bits"], case["a"], case["c"])(oracles.tensor(case, "w"))
    padded = F.pad(oracles.tensor(case, "x"), (case["padding"],) * 4, value=DuQ("hswish").offset)
    outputs = F.conv2d(padded, weight, stride=case["stride"], groups=case["groups"])
    assert (outputs - oracles.tensor(case, "y")).abs().max() <= 1e-6


def test_a_case_by_hand():
    """2 bits, a = 2, c = 3: outputs and gradients on paper."""
    # 3x/a = [-1.5, 0.45, 0.6, 1.5, 2.85, 7.5]; the tie at 1.5 goes to 2.
    ours = quantizer("unsigned", 2, 2.0, 3.0)
    inputs = torch.tensor([-1.0, 0.3, 0.4, 1.0, 1.9, 5.0], requires_grad=True)
    outputs = ours(inputs)
    torch.testing.assert_close(outputs, torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 3.0]))
    outputs.sum().backward()
    torch.testing.assert_close(inputs.grad, torch.tensor([0.0, 1.5, 1.5, 1.5, 1.5, 0.0]))
    # d/da = -c/a^2 * (0.3 + 0.4 + 1.0 + 1.9) = -2.7; d/dc = (1 + 2 + 3 + 3)/3 = 3; softplus' = 1 - exp(-range).
    torch.testing.assert_close(ours.input_range_raw.grad, torch.tensor(-2.7 * 0.8646647))
    torch.testing.assert_close(ours.output_range_raw.grad, torch.tensor(3.0 * 0.9502129))


@pytest.mark.parametrize(
    ("domain", "inputs", "outputs"),
    [
        ("hswish", [-1.0, -0.375, 0.5, 3.0], [-0.375, -0.375, 0.625, 2.625]),  # 3(x + 3/8)/2 = [_, 0, 1.3, 5]
        ("signed", [-3.0, -1.1, 0.9, 3.0], [-3.0, -3.0, 0.0, 3.0]),  # x/2 = [-1.5, -0.55, 0.45, 1.5]: ternary
    ],
)
def test_the_other_domains_by_hand(domain: str, inputs: list[float], outputs: list[float]):
    """2 bits, a = 2, c = 3: code 0 of h-swish is exactly -3/8."""
    torch.testing.assert_close(quantizer(domain, 2, 2.0, 3.0)(torch.tensor(inputs)), torch.tensor(outputs))


@given(domains, widths, seeds)
def test_matches_the_paper_in_float64(domain: str, bits: int, seed: int):
    """Outputs and gradients equal a literal transcription and its autograd."""
    generator = torch.Generator().manual_seed(seed)
    inputs, upstream = torch.randn(2, 200, generator=generator, dtype=torch.float64)
    ours = DuQ(domain).double()
    ours.bits = bits
    ours.set_ranges(*(torch.rand(2, generator=generator, dtype=torch.float64) * 3 + 0.1))
    raw = [ours.input_range_raw.detach().clone().requires_grad_(), ours.output_range_raw.detach().clone().requires_grad_()]
    one, other = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    outputs, expected = ours(one), duq(other, softplus(raw[0]), softplus(raw[1]), bits, domain)
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    outputs.backward(upstream)
    expected.backward(upstream)
    for found, reference in zip((one, ours.input_range_raw, ours.output_range_raw), (other, *raw), strict=True):
        torch.testing.assert_close(found.grad, reference.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("a", RANGES)
@pytest.mark.parametrize("c", RANGES)
@pytest.mark.parametrize("domain", ["unsigned", "hswish", "signed"])
def test_no_range_overflows(domain: str, a: float, c: float):
    """Outputs and gradients are finite for every pair of ranges a float can hold."""
    for bits in (2, 8):
        assert_finite(quantizer(domain, bits, a, c), [0.0, 1e-38, -1.0, 1.0, a, a / 2, 3e38, -3e38])


@pytest.mark.parametrize("raw", [-3e38, -200.0, -104.0, 3e38])
def test_no_raw_parameter_overflows(raw: float):
    """The optimizer may leave it anywhere; where softplus underflows the range is still positive."""
    ours = quantizer("unsigned", 8, 1.0, 1.0)
    with torch.no_grad():
        ours.input_range_raw.fill_(raw)
    assert ours.input_range > 0
    assert_finite(ours, [0.0, 1e-38, -1.0, 1.0, 3e38])


def assert_finite(ours: DuQ, inputs: list[float]) -> None:
    values = torch.tensor(inputs, requires_grad=True)
    outputs = ours(values)
    outputs.sum().backward()
    for tensor in (outputs, values.grad, ours.input_range_raw.grad, ours.output_range_raw.grad):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("value", RANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_inverse_round_trips(value: float, dtype: torch.dtype):
    """For every positive value; log(exp(v) - 1) overflows from 89 up."""
    expected = torch.tensor(value, dtype=dtype)
    # Near 1e-38 raw is -87, and half an ulp of it is 4e-6 of the range; above 20 torch takes softplus(r) for r.
    torch.testing.assert_close(
        F.softplus(softplus_inverse(expected)), expected, rtol=1e-5 if dtype == torch.float32 else 1e-9, atol=0
    )


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_range_that_is_not_positive_is_refused(value: float):
    """By name and value."""
    with pytest.raises(ValueError, match=r"output_range: .* is not a positive finite number"):
        quantizer("unsigned", 4, 1.0, value)


def weights() -> Tensor:
    return torch.randn(32, 1, 3, 3, generator=torch.Generator().manual_seed(0))


def fit(bits: int) -> DuQWeight:
    made = DuQWeight()
    made.bits = bits
    made.initialize(weights())
    return made


@pytest.mark.parametrize("bits", [4, 8])
def test_wide_weights_start_at_nine_tenths_of_the_largest(bits: int):
    """Both ranges, as the authors' do."""
    ours = fit(bits)
    for found in (ours.input_range, ours.output_range):
        torch.testing.assert_close(found, 0.9 * weights().abs().max())


@pytest.mark.parametrize("bits", [2, 3])
def test_narrow_weights_start_at_the_least_squares_fit(bits: int):
    """Fewer zeros and a lower error than with the authors' range."""
    fitted, authors = fit(bits), fit(8)
    authors.bits = bits

    def zeros(ours: DuQWeight) -> int:
        return int((ours.codes(weights()) == 0).sum())

    def error(ours: DuQWeight) -> float:
        return (ours(weights()) - weights()).square().sum().item()

    assert zeros(fitted) < 0.6 * zeros(authors)
    assert error(fitted) < 0.6 * error(authors)


def started(domain: str, bits: int, start: RangeStart) -> tuple[DuQ, Tensor]:
    """Return a quantizer, and the activations of its domain that it was initialized with."""
    values = 2 * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    values = {"unsigned": F.relu, "hswish": F.hardswish, "signed": nn.Identity()}[domain](values)
    made = DuQ(domain)
    made.bits, made.start = bits, start
    made.initialize(values)
    return made, values


@pytest.mark.parametrize("domain", ["unsigned", "hswish", "signed"])
@pytest.mark.parametrize("bits", [4, 8])
def test_activations_start_at_the_percentile(domain: str, bits: int):
    """Both ranges, of what lies above the offset (or of the magnitudes)."""
    ours, values = started(domain, bits, "percentile")
    positive = values.abs() if domain == "signed" else values - ours.offset
    expected = positive[positive > 0].quantile(0.95)
    torch.testing.assert_close(ours.input_range, expected)
    torch.testing.assert_close(ours.output_range, expected)


@pytest.mark.parametrize("domain", ["unsigned", "hswish", "signed"])
@pytest.mark.parametrize(("bits", "start"), [(2, "percentile"), (3, "percentile"), (2, "least-squares"), (8, "least-squares")])
def test_activations_start_at_the_least_squares_fit(domain: str, bits: int, start: RangeStart):
    """No pair of ranges near the fitted one has a lower error, nor has the percentile, up to the resolution of the grid."""
    ours, values = started(domain, bits, start)
    a, c = ours.input_range.detach(), ours.output_range.detach()

    def error(a: Tensor, c: Tensor) -> float:
        ours.set_ranges(a, c)
        return (ours(values) - values).square().sum().item()

    least, percentile = error(a, c), positive_percentile(values, domain)
    assert all(least <= error(a * in_share, c * out_share) for in_share in (0.9, 1, 1.1) for out_share in (0.95, 1, 1.05))
    assert least < 1.001 * error(percentile, percentile)  # the ranges come from a grid, and the percentile can be the best one


def test_the_least_squares_fit_finds_an_exact_one():
    """Ternary weights are reproduced."""
    ternary = torch.tensor([-0.3, 0.0, 0.3, 0.3, 0.0])
    ours = DuQWeight()
    ours.bits = 2
    ours.initialize(ternary)
    torch.testing.assert_close(ours(ternary), ternary)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_range_per_channel_is_a_layer_per_channel(bits: int):
    """The same ranges, outputs and gradients; a channel of zeros gets the largest range."""
    weight, upstream = torch.randn(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    weight *= torch.tensor([0.1, 1, 3, 10, 0])[:, None, None, None]
    ours = DuQWeight(range_shape=(5, 1, 1, 1))
    ours.bits = bits
    ours.initialize(weight)
    weight.requires_grad_()
    outputs = ours(weight)
    outputs.backward(upstream)
    for channel in range(4):
        alone, part = DuQWeight(), weight[channel].detach().requires_grad_()
        alone.bits = bits
        alone.initialize(part.detach())
        torch.testing.assert_close(ours.input_range[channel].squeeze(), alone.input_range)
        alone(part).backward(upstream[channel])
        torch.testing.assert_close(outputs[channel], alone(part))
        torch.testing.assert_close(weight.grad[channel], part.grad)
        torch.testing.assert_close(ours.output_range_raw.grad[channel].squeeze(), alone.output_range_raw.grad)
        torch.testing.assert_close(ours.input_range_raw.grad[channel].squeeze(), alone.input_range_raw.grad)
    assert ours.input_range[4] >= 0.9 * ours.input_range.max()
    assert not outputs[4].any()
