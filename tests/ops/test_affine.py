import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from subfour.ops import IntegerGrid, QuantParams, check_bits, dequantize, fake_quantize, quantize
from tests.reference.duq import round_ste

HSWISH_MINIMUM = -0.375

values = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20).map(torch.tensor)
seeds = st.integers(0, 2**32)


@st.composite
def grids(draw: st.DrawFn) -> tuple[IntegerGrid, int]:
    """Return a grid and a zero point inside it."""
    grid = draw(st.sampled_from([IntegerGrid.unsigned, IntegerGrid.signed_narrow]))(draw(st.integers(2, 8)))
    return grid, draw(st.sampled_from([0, grid.qmin, grid.qmax, grid.qmin + grid.num_levels // 3]))


@st.composite
def symmetric_params(draw: st.DrawFn) -> QuantParams:
    """Return constants whose pre_scale is their scale, so that values and codes are one to one."""
    grid, zero_point = draw(grids())
    offset = draw(st.sampled_from([0.0, HSWISH_MINIMUM]))
    exponent = draw(st.floats(-3, 3) if offset else st.floats(-30, 30))  # float32 cannot add a tiny step to -3/8
    scale = torch.tensor(10.0**exponent)
    return QuantParams(grid, scale, scale, offset, zero_point)


@st.composite
def any_params(draw: st.DrawFn) -> QuantParams:
    """Return constants with unrelated steps, the whole range of float32."""
    grid, zero_point = draw(grids())
    pre_scale, scale = (torch.tensor(10.0 ** draw(st.floats(-40, 36))) for _ in range(2))
    return QuantParams(grid, pre_scale, scale, draw(st.sampled_from([0.0, HSWISH_MINIMUM])), zero_point)


def all_codes(params: QuantParams) -> Tensor:
    return torch.arange(params.grid.qmin, params.grid.qmax + 1.0)


@given(values, any_params())
def test_codes_are_integers_inside_the_grid(values: Tensor, params: QuantParams):
    """For any value a float can hold, infinite ones included."""
    codes = quantize(values, params)
    assert codes.equal(codes.round())
    assert codes.min() >= params.grid.qmin
    assert codes.max() <= params.grid.qmax


@given(values, any_params())
def test_fake_quantize_is_dequantize_of_quantize(values: Tensor, params: QuantParams):
    """Bit for bit: exported codes are the trained ones."""
    assert fake_quantize(values, params).equal(dequantize(quantize(values, params), params))


@given(symmetric_params())
def test_every_code_round_trips(params: QuantParams):
    """quantize(dequantize(code)) is the code, for each code of the grid."""
    codes = all_codes(params)
    assert quantize(dequantize(codes, params), params).equal(codes)


@given(values, symmetric_params())
def test_fake_quantize_is_idempotent(values: Tensor, params: QuantParams):
    """What is on the grid stays where it is."""
    once = fake_quantize(values, params)
    assert fake_quantize(once, params).equal(once)


@given(values, any_params())
def test_fake_quantize_is_monotone(values: Tensor, params: QuantParams):
    """A larger value never gets a smaller one's code."""
    assert (fake_quantize(values.sort().values, params).diff() >= 0).all()


@given(values, any_params())
def test_clip_before_round_gives_the_codes_of_round_before_clip(values: Tensor, params: QuantParams):
    """The order ONNX QuantizeLinear has; ours differs in the gradient only."""
    onnx_codes = (((values - params.offset) / params.pre_scale).round() + params.zero_point).clamp(
        params.grid.qmin, params.grid.qmax
    )
    assert quantize(values, params).equal(onnx_codes)


@given(any_params())
def test_offset_is_the_value_of_the_zero_point(params: QuantParams):
    """The rule of padding, negative or not."""
    assert dequantize(torch.tensor(float(params.zero_point)), params) == params.offset


def test_a_case_by_hand():
    """Codes, values and all three gradients, on paper."""
    # u = [-4, -1, 0.5, 1.5, 10] clips to -1 .. 2 and rounds, ties to even, to k = [-1, -1, 0, 2, 2].
    inputs = torch.tensor([-2.0, -0.5, 0.25, 0.75, 5.0], requires_grad=True)
    pre_scale, scale = torch.tensor(0.5, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    params = QuantParams(IntegerGrid.unsigned(2), pre_scale, scale, zero_point=1)
    assert quantize(inputs, params).tolist() == [0, 0, 1, 3, 3]
    outputs = fake_quantize(inputs, params)
    assert outputs.tolist() == [-3, -3, 0, 6, 6]
    outputs.sum().backward()
    assert inputs.grad.tolist() == [0, 6, 6, 6, 0]
    assert pre_scale.grad == -6.0  # -(-1 + 0.5 + 1.5) * 3 / 0.5
    assert scale.grad == 2.0  # -1 - 1 + 0 + 2 + 2


@pytest.mark.parametrize("shape", [(), (3, 1, 1)], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("scale_shape", [(), (3, 1, 1)], ids=["one scale", "scale per channel"])
@given(grids(), seeds)
def test_gradients_are_autograds(
    shape: tuple[int, ...], scale_shape: tuple[int, ...], grid_and_zero_point: tuple[IntegerGrid, int], seed: int
):
    """Plain autograd of clip, straight-through round and scaling, in float64."""
    grid, zero_point = grid_and_zero_point
    generator = torch.Generator().manual_seed(seed)

    def positive(shape: tuple[int, ...]) -> Tensor:
        return (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1).requires_grad_()

    inputs = (torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) * grid.num_levels / 4).requires_grad_()
    pre_scale, scale = positive(shape), positive(scale_shape)
    params = QuantParams(grid, pre_scale, scale, HSWISH_MINIMUM, zero_point)
    upstream = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)

    position = torch.clamp((inputs - HSWISH_MINIMUM) / pre_scale, grid.qmin - zero_point, grid.qmax - zero_point)
    composite = round_ste(position) * scale + HSWISH_MINIMUM
    expected = torch.autograd.grad(composite, (inputs, pre_scale, scale), upstream)
    found = torch.autograd.grad(fake_quantize(inputs, params), (inputs, pre_scale, scale), upstream)
    for ours, autograds in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-12, atol=1e-12)


@given(any_params(), seeds)
def test_nothing_overflows(params: QuantParams, seed: int):
    """Outputs and gradients are finite for steps at both ends of float32, in every combination."""
    inputs = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    inputs[:4] = torch.tensor([0.0, 3e38, -3e38, 1e-45])
    inputs.requires_grad_()
    pre_scale, scale = params.pre_scale.clone().requires_grad_(), params.scale.clone().requires_grad_()
    outputs = fake_quantize(inputs, QuantParams(params.grid, pre_scale, scale, params.offset, params.zero_point))
    gradients = torch.autograd.grad(outputs, (inputs, pre_scale, scale), torch.ones_like(outputs))
    for tensor in (outputs, *gradients):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("bits", [-4, 0, 1, 9, 16, 31, 33])
def test_other_widths_are_refused(bits: int):
    """The message names the option, the number and what is possible."""
    with pytest.raises(ValueError, match=f"weight_bits: {bits} bits is not possible; choose from 2..8, or 32 for float"):
        check_bits(bits, "weight_bits")
