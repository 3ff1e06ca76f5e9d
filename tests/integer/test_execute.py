from typing import get_args

import torch
from hypothesis import given
from hypothesis import strategies as st

from subfour.integer.execute import COMPUTE, FUNCTIONS, accumulate, compute, execute
from subfour.integer.program import Activate, CodeSum, Function, Gate, Layer, Operation, Pool
from tests.integer.programs import random_pixels, stock_programs


def test_every_operation_and_function_can_be_executed():
    assert set(COMPUTE) == set(get_args(Operation))
    assert set(FUNCTIONS) == set(get_args(Function))


def test_every_value_is_given_by_name():
    """Codes lie in their quantizer's range and are integers."""
    programs = stock_programs("torchvision/mobilenet_v3_small")
    for program in (programs.built, programs.settled):
        values = execute(program, random_pixels())
        assert values.keys() == {"image", *(operation.name for operation in program.operations)}
        assert values[program.output].shape == (2, 10)
        for quantize in program.quantizers:
            codes = values[quantize.name]
            assert torch.equal(codes, codes.round())
            assert quantize.qmin <= codes.min()
            assert codes.max() <= quantize.qmax
            assert codes.unique().numel() > 1, quantize.name


@given(
    zero=st.integers(0, 200),
    step=st.floats(0.001, 10),
    codes=st.lists(st.integers(0, 255), min_size=1, max_size=6),
    gate=st.integers(0, 255),
)
def test_a_gate_is_the_product_of_what_its_codes_stand_for(zero: int, step: float, codes: list[int], gate: int):
    """In units of a step 255 times finer, counted from the lowest value."""
    operation = Gate(name="gate", inputs=("a", "b"), zero=zero, largest=255)
    tensors = [torch.tensor(numbers, dtype=torch.float64).view(1, -1, 1, 1) for numbers in (codes, [gate] * len(codes))]
    values, factors = (tensors[0] - zero) * step, tensors[1] / 255
    expected = (values * factors + zero * step) * 255 / step
    torch.testing.assert_close(compute(operation, tensors), expected, rtol=1e-9, atol=1e-7)


def test_the_sum_of_codes_is_the_mean_of_values():
    """Times positions, in steps."""
    codes = torch.randint(0, 256, (2, 3, 5, 4)).double()
    total = compute(CodeSum(name="sum", inputs=("codes",)), [codes])
    mean = compute(Pool(name="pool", inputs=("values",)), [0.01 * (codes - 30)])
    torch.testing.assert_close(0.01 * (total / 20 - 30), mean)


def test_accumulators_are_exact_whatever_the_order_of_channels():
    """Integers below 2^24 in float32."""
    program = stock_programs("torchvision/mobilenet_v2").settled
    values = execute(program, random_pixels())
    for layer in program.operations:
        if isinstance(layer, Layer):
            codes = values[layer.inputs[0]]
            sums = accumulate(layer, codes)
            assert torch.equal(sums.double(), accumulate_double(layer, codes)), layer.name


def accumulate_double(layer: Layer, codes: torch.Tensor) -> torch.Tensor:
    weight = layer.codes.double()
    if layer.linear:
        return codes.double() @ weight.T
    return torch.nn.functional.conv2d(codes.double(), weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def test_a_nonlinearity_is_torch_s_own():
    values = torch.linspace(-5, 8, 101)
    for function, module in (("relu6", torch.nn.ReLU6()), ("hardswish", torch.nn.Hardswish()), ("sigmoid", torch.nn.Sigmoid())):
        assert torch.equal(compute(Activate(name="f", inputs=("v",), function=function), [values]), module(values))
