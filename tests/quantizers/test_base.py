from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from subfour.quantizers import (
    DSQ,
    LSQ,
    PACT,
    SAWB,
    UNIQ,
    Affine,
    AffineWeight,
    Domain,
    DSQWeight,
    DuQ,
    DuQOffset,
    DuQOffsetWeight,
    DuQWeight,
    ImageQuantizer,
    LSQPlus,
    LSQPlusWeight,
    LSQWeight,
    Quantizer,
    positive_percentile,
)
from subfour.quantizers.base import FITTED_SAMPLES, SMALLEST_RANGE, fitted_sample, percentile_ends

DOMAINS: tuple[Domain, ...] = ("unsigned", "hswish", "signed")

LEARNED: dict[str, Callable[[], Quantizer]] = {
    "duq-unsigned": lambda: DuQ("unsigned"),
    "duq-hswish": lambda: DuQ("hswish"),
    "duq-signed": lambda: DuQ("signed"),
    "duq-weight": DuQWeight,
    **{f"duq-offset-{domain}": partial(DuQOffset, domain) for domain in DOMAINS},
    "duq-offset-weight": DuQOffsetWeight,
    "pact-unsigned": lambda: PACT("unsigned"),
    "pact-hswish": lambda: PACT("hswish"),
    "pact-signed": lambda: PACT("signed"),
    "sawb": SAWB,
    **{f"lsq-{domain}": partial(LSQ, domain) for domain in DOMAINS},
    "lsq-weight": LSQWeight,
    **{f"lsq-plus-{domain}": partial(LSQPlus, domain) for domain in DOMAINS},
    "lsq-plus-weight": LSQPlusWeight,
    **{f"dsq-{domain}": partial(DSQ, domain) for domain in DOMAINS},
    "dsq-weight": DSQWeight,
    **{f"affine-{domain}": partial(Affine, domain) for domain in DOMAINS},
    "affine-weight": AffineWeight,
    "uniq": UNIQ,
}
ALL = LEARNED | {"image": lambda: ImageQuantizer([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}

names = st.sampled_from([*ALL])
in_one_form = st.sampled_from([name for name in ALL if name != "uniq"])
widths = st.sampled_from([2, 3, 4, 5, 8])
seeds = st.integers(0, 2**32)


def samples(seed: int = 0) -> Tensor:
    return torch.randn(500, generator=torch.Generator().manual_seed(seed)) * 2


def initialized(name: str, bits: int, seed: int) -> Quantizer:
    quantizer = ALL[name]()
    quantizer.bits = bits
    quantizer.initialize(samples(seed))
    return quantizer


@pytest.mark.parametrize("name", ALL)
def test_32_bits_is_the_identity(name: str):
    """The very object, ranges or none."""
    quantizer, inputs = ALL[name](), samples()
    assert quantizer(inputs) is inputs
    quantizer.bits = 4
    quantizer.initialize(inputs)
    quantizer.bits = 32
    assert quantizer(inputs) is inputs


@pytest.mark.parametrize("name", LEARNED)
def test_a_quantizer_without_ranges_raises(name: str):
    """Nothing is quantized with ranges nobody set."""
    quantizer = LEARNED[name]()
    quantizer.bits = 4
    with pytest.raises(RuntimeError, match="no ranges yet: calibrate"):
        quantizer(samples())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bits", [0, 1, 9, 16])
def test_other_widths_are_refused(name: str, bits: int):
    """2 to 8, or 32."""
    with pytest.raises(ValueError, match=f"bits: {bits} bits is not possible"):
        ALL[name]().bits = bits


@given(names, widths, seeds)
def test_forward_is_the_one_form(name: str, bits: int, seed: int):
    """Bit for bit, codes inside the grid, larger values never with smaller codes."""
    quantizer = initialized(name, bits, seed).eval()
    inputs = samples(seed).sort().values
    codes = quantizer.codes(inputs)
    assert quantizer(inputs).equal(quantizer.values(codes))
    assert (codes.diff() >= 0).all()
    assert codes.min() >= quantizer.grid.qmin
    assert codes.max() <= quantizer.grid.qmax


@given(in_one_form, widths, seeds)
def test_the_offset_is_the_value_of_the_zero_point(name: str, bits: int, seed: int):
    """So that padding with it adds nothing at deployment. Code 0, but for affine quantizers."""
    quantizer = initialized(name, bits, seed)
    zero_point = quantizer.params().zero_point
    assert zero_point == 0 or name.startswith("affine")
    assert quantizer.values(torch.tensor(float(zero_point))) == quantizer.offset
    assert quantizer.codes(torch.tensor(quantizer.offset)) == zero_point


@given(names, widths, seeds)
def test_every_bin_centre_gets_its_code_back(name: str, bits: int, seed: int):
    """What a model file relies on."""
    quantizer = initialized(name, bits, seed)
    codes = torch.arange(quantizer.grid.qmin, quantizer.grid.qmax + 1.0)
    assert quantizer.codes(quantizer.bin_centres(codes)).equal(codes)


@pytest.mark.parametrize("name", LEARNED)
def test_a_loaded_quantizer_is_as_initialized_as_the_saved_one(name: str):
    """Ranges come with the state dict; a state saved before calibration brings none."""
    saved, loaded = initialized(name, 4, seed=0), LEARNED[name]().eval()
    loaded.bits = 4
    loaded.load_state_dict(LEARNED[name]().state_dict())
    assert not loaded.initialized
    loaded.load_state_dict(saved.state_dict())
    assert loaded.initialized
    assert loaded(samples(1)).equal(saved.eval()(samples(1)))


@pytest.mark.parametrize(
    ("domain", "inputs", "median"),
    [
        ("unsigned", [-9.0, 0.0, 1.0, 3.0], 2.0),
        ("hswish", [-0.375, 0.625, 1.625, 2.625], 2.0),
        ("signed", [-3.0, 0.0, 1.0, -2.0], 2.0),
    ],
)
def test_percentiles_by_hand(domain: str, inputs: list[float], median: float):
    """Of the positive part of x, x + 3/8 or |x|."""
    assert positive_percentile(torch.tensor(inputs), domain, percent=50.0) == median


@pytest.mark.parametrize("name", [name for name in LEARNED if name not in ("pact-hswish", "lsq-hswish", "affine-hswish")])
def test_nothing_can_be_learned_from_nothing(name: str):
    """A dead layer is an error, not a range of zero."""
    quantizer = LEARNED[name]()
    quantizer.bits = 4
    with pytest.raises(ValueError, match=r"all zero|not a positive"):
        quantizer.initialize(torch.full((8,), quantizer.offset))


@pytest.mark.parametrize("name", ["affine-signed", "affine-weight", "sawb", "uniq"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 0.0])
def test_a_range_that_follows_values_stops_training_where_it_has_none(name: str, wrong: float):
    """Training has diverged, as with a loss that is not finite; calibration meets bad input. The range stays what it was."""
    made = ALL[name]()
    made.bits = 4
    made.initialize(samples())
    before = {entry: value.clone() for entry, value in made.state_dict().items()}
    values = torch.zeros(8)
    values[3] = wrong
    with pytest.raises(ValueError, match=r"all zero|not finite"):
        made.initialize(values)
    if name != "affine-signed" or wrong != 0:  # one batch of zeros leaves a running mean
        with pytest.raises(FloatingPointError, match=r"all zero|not finite"):
            made(values)
    assert all(torch.equal(value, before[entry]) for entry, value in made.state_dict().items())


@pytest.mark.parametrize(
    "name", ["duq-unsigned", "duq-signed", "duq-offset-signed", "lsq-plus-unsigned", "lsq-plus-hswish", "lsq-plus-signed"]
)
@pytest.mark.parametrize("bits", [2, 4])
def test_samples_too_sparse_to_be_fitted_start_at_the_percentile(name: str, bits: int):
    """Five values of a million, which the part that is fitted leaves out."""
    sparse = torch.zeros(1_000_000)
    sparse[1::200_001] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert not fitted_sample(sparse).any()
    made = ALL[name]()
    made.bits = bits
    made.initialize(sparse)
    least, largest = made.values(torch.tensor([float(made.grid.qmin), float(made.grid.qmax)])).tolist()
    assert (least, largest) == pytest.approx([end.item() for end in percentile_ends(sparse, made.domain)])


@pytest.mark.parametrize("size", [1, 65_535, 131_071, 131_072, 300_000])
def test_a_fitted_sample_has_equal_distances_and_enough_values(size: int):
    kept = fitted_sample(torch.arange(size).reshape(1, -1))
    assert len(kept) >= min(size, FITTED_SAMPLES)
    assert len(kept) < 2 * FITTED_SAMPLES
    assert len(kept.diff().unique()) <= 1


def test_the_smallest_range_changes_nothing_from_its_bound_up():
    """Half the distance of floats there is above it, half of that below."""
    bound = torch.tensor(2.0**-108)
    assert bound + SMALLEST_RANGE == bound
    below = torch.nextafter(bound, torch.tensor(0.0))
    assert below + SMALLEST_RANGE != below
