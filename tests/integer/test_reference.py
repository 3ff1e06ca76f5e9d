"""The specification in numpy, against torch and against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subfour.integer import reference
from subfour.integer.grids import TIE_BITS


@given(data=st.data())
def test_a_convolution_is_torch_s(data: st.DataObject):
    """On integers, whatever stride, padding, dilation and groups."""
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = (data.draw(pairs, name) for name in ("kernel", "stride", "dilation"))
    padding = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)), "padding")
    groups, inputs, outputs = (data.draw(st.integers(1, 3), name) for name in ("groups", "inputs per group", "outputs per group"))
    height, width = (
        data.draw(st.integers(max(1, step * (size - 1) + 1 - 2 * border), 9))
        for size, step, border in zip(kernel, dilation, padding, strict=True)
    )
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    codes = generator.integers(-127, 256, (2, groups * inputs, height, width), dtype=np.int32)
    weight = generator.integers(-127, 128, (groups * outputs, inputs, *kernel), dtype=np.int8)
    found = reference.accumulate(codes, weight=weight, groups=groups, stride=stride, padding=padding, dilation=dilation)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(codes).double(), torch.from_numpy(weight).double(), None, stride, padding, dilation, groups
    )
    assert found.dtype == np.int32
    assert np.array_equal(found, expected.numpy())


@given(seed=st.integers(0, 2**32), inputs=st.integers(1, 40), outputs=st.integers(1, 5))
def test_a_linear_layer_is_torch_s(seed: int, inputs: int, outputs: int):
    generator = np.random.default_rng(seed)
    codes = generator.integers(-127, 256, (3, inputs), dtype=np.int32)
    weight = generator.integers(-127, 128, (outputs, inputs), dtype=np.int8)
    expected = torch.from_numpy(codes).double() @ torch.from_numpy(weight).double().T
    assert np.array_equal(reference.accumulate(codes, weight=weight, groups=1), expected.numpy())


def test_an_accumulator_that_may_leave_int32_is_refused():
    """By the largest code and the largest row of weights; one less is computed."""
    weight = np.full((1, 2**16), 127, dtype=np.int8)
    largest = (2**31 - 1) // (127 * 2**16)
    codes = np.full((1, 2**16), largest, dtype=np.int32)
    assert reference.accumulate(codes, weight=weight, groups=1)[0, 0] == largest * 127 * 2**16
    with pytest.raises(OverflowError, match=f"an accumulator may reach {(largest + 1) * 127 * 2**16}, beyond int32"):
        reference.accumulate(codes + 1, weight=weight, groups=1)


@given(
    half=st.integers(0, 2**14),
    offset=st.integers(-(2**20), 2**20),
    values=st.lists(st.integers(-(2**23), 2**23), min_size=1, max_size=20),
)
def test_a_division_rounds_to_the_nearest_and_never_meets_a_tie(half: int, offset: int, values: list[int]):
    """The step is odd; exactly, and in float32 as executors divide, while step times levels stays below 2^19."""
    step = 2 * half + 1
    numbers = np.array(values)
    levels = 2**TIE_BITS // step
    found = reference.divide(numbers + offset, step=step, offset=offset, qmin=-levels, qmax=levels)
    quotients = [Fraction(value, step) for value in values]
    assert all(quotient.denominator % 2 for quotient in quotients)
    assert found.tolist() == [min(max(round(quotient), -levels), levels) for quotient in quotients]
    floats = torch.tensor(values, dtype=torch.float32)
    for divided in (floats / step, floats * (1 / torch.tensor(step, dtype=torch.float32))):
        assert divided.clamp(-levels, levels).round().int().tolist() == found.tolist()


@given(
    up=st.lists(st.integers(-50, 50), min_size=1, max_size=15),
    down=st.lists(st.integers(-50, 50), max_size=5),
    base=st.integers(-3, 10),
)
def test_a_threshold_counts_what_was_passed(up: list[int], down: list[int], base: int):
    """An accumulator that is a threshold has passed it."""
    sums = np.arange(-60, 61, dtype=np.int32).reshape(1, 1, 11, 11)
    arrays = [np.array([sorted(numbers)], dtype=np.int32).reshape(1, -1) for numbers in (up, down)]
    found = reference.threshold(sums, base=base, up=arrays[0], down=arrays[1])
    expected = [base + sum(value >= one for one in up) - sum(value >= one for one in down) for value in range(-60, 61)]
    assert found.flatten().tolist() == expected


def test_a_constant_belongs_to_the_operation_it_is_named_after():
    """Also where one layer's name begins another's."""
    operations = [
        {"op": "accumulate", "name": "a", "inputs": ["image"], "groups": 1},
        {"op": "accumulate", "name": "a.b", "inputs": ["a"], "groups": 1},
    ]
    arrays = {"a.weight": np.full((1, 2), 3, np.int8), "a.b.weight": np.full((1, 1), -5, np.int8)}
    values = reference.run(operations, arrays, np.array([[1, 2]], dtype=np.uint8))
    assert values["a.b"].tolist() == [[-45]]
