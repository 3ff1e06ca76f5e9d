from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from subfour.integer.boundaries import boundaries, resting_code
from subfour.integer.program import Function, Quantize

FUNCTIONS: dict[Function, Any] = {
    "hardswish": lambda v: v * np.clip(v + 3, 0, 6) / 6,
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
}

DENSE = np.concatenate([np.linspace(-6, 6, 4801), np.linspace(-40, 40, 401), [-1e6, -100, 100, 1e6]])

quantizers = st.builds(
    lambda step, bits, offset, signed: Quantize(
        name="quantize",
        inputs=("value",),
        step=torch.tensor(step, dtype=torch.float64),
        offset=offset,
        qmin=1 - 2 ** (bits - 1) if signed else 0,
        qmax=2 ** (bits - 1) - 1 if signed else 2**bits - 1,
        bits=bits,
    ),
    st.floats(0.002, 1.5),
    st.integers(2, 8),
    st.sampled_from([-0.375, 0.0, -0.2]),
    st.booleans(),
)


def counted(quantize: Quantize, function: Function, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return codes by counting the boundaries that lie below each value."""
    up, down = boundaries(quantize, function)
    risen, fallen = ((values[:, None] > passed).sum(axis=1) for passed in (up, down))
    return resting_code(quantize) - np.isneginf(up).sum() + risen - fallen  # type: ignore[no-any-return]


@pytest.mark.parametrize("function", FUNCTIONS)
@given(quantize=quantizers)
def test_codes_counted_from_boundaries_are_the_codes(function: Function, quantize: Quantize):
    """Everywhere but at the boundaries themselves, on both arms of h-swish."""
    step = float(quantize.step)
    assume(abs((-quantize.offset / step) % 1 - 0.5) > 1e-6)  # as `settle` sees to: the resting value is no tie
    with np.errstate(over="ignore"):
        positions = (FUNCTIONS[function](DENSE) - quantize.offset) / step
    clear = abs(positions % 1 - 0.5) > 1e-6
    codes = np.clip(np.round(positions), quantize.qmin, quantize.qmax)
    assert (counted(quantize, function, DENSE)[clear] == codes[clear]).all()
    assert clear.mean() > 0.9


@pytest.mark.parametrize("function", FUNCTIONS)
@given(quantize=quantizers, tolerance=st.floats(0, 2**-12))
def test_a_tolerance_moves_every_boundary_outwards_or_nowhere(function: Function, quantize: Quantize, tolerance: float):
    """A larger output is needed: reached later on the way up, left earlier on the way down."""
    (up, down), (later, earlier) = boundaries(quantize, function), boundaries(quantize, function, tolerance=tolerance)
    assert (later >= up).all()
    both = np.isfinite(down) & np.isfinite(earlier)
    assert (earlier[both] <= down[both]).all()


@given(quantize=quantizers, tolerance=st.floats(2**-21, 2**-18))
def test_the_band_around_a_sigmoid_s_boundary_is_never_narrower_than_its_error(quantize: Quantize, tolerance: float):
    """Which is as large near 0 as at 1/2: 1.5e-7 in onnxruntime."""
    bands = (boundaries(quantize, "sigmoid", tolerance=signed).up for signed in (-tolerance, 0, tolerance))
    below, at, above = (1 / (1 + np.exp(-np.clip(values, -40, 40))) for values in bands)
    reached = (below > 1e-12) & (above < 1 - 1e-12)
    assert (above - at >= 1.5e-7)[reached].all()
    assert (at - below >= 1.5e-7)[reached].all()


def test_a_zero_point_widens_the_bands():
    """An executor may add it before it rounds."""
    step, function = torch.tensor(0.05, dtype=torch.float64), "hardswish"
    plain, shifted = (Quantize(name="q", inputs=("v",), step=step, offset=0.0, qmin=low, qmax=31, bits=6) for low in (0, -32))
    above = (boundaries(q, function, tolerance=2**-21).up[-31:] - boundaries(q, function).up[-31:] for q in (plain, shifted))
    narrow, wide = above
    assert (wide > narrow).all()


def test_under_h_swish_codes_fall_before_they_rise():
    """From the code of 0 to code 0 at -3/2, and up without end; negative padding's step."""
    step = torch.tensor(0.1, dtype=torch.float64)
    quantize = Quantize(name="q", inputs=("v",), step=step, offset=-0.375, qmin=0, qmax=15, bits=4)
    up, down = boundaries(quantize, "hardswish")
    assert resting_code(quantize) == 4
    assert np.isfinite(up).all()
    assert (np.diff(up) > 0).all()
    assert np.isfinite(down).sum() == 4
    assert ((down[:4] > -3) & (down[:4] < -1.5)).all()
    assert up[0] == pytest.approx(-1.5 + np.sqrt(6 * 0.05))


def test_only_curved_nonlinearities_have_boundaries():
    quantize = Quantize(name="q", inputs=("v",), step=torch.tensor(0.1), offset=0.0, qmin=0, qmax=15, bits=4)
    with pytest.raises(AssertionError, match="merges every other nonlinearity"):
        boundaries(quantize, "relu")
