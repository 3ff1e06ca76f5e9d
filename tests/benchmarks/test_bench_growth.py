import pytest
from bench_growth import AXES, QUANTITIES, VARIANTS, Size, exponent, growth_figure, sizes_along


def test_the_exponent_of_a_power_is_that_power():
    values = [1.0, 2.0, 5.0]
    assert exponent(values, [3 * value**1.5 for value in values]) == pytest.approx(1.5)


def test_one_thing_varies_at_a_time_and_goes_through_the_base():
    for varies in AXES:
        sizes = sizes_along(varies)
        assert Size() in sizes.values()
        assert all(vars(size) == vars(Size()) | {varies: value} for value, size in sizes.items())


def test_the_figure_names_both_variants_and_every_exponent():
    rows = [
        {"varies": varies, "value": value, "variant": name}
        | dict.fromkeys(QUANTITIES, value * (1 + index))
        | {f"{quantity}_exponent": f"{1 + index}.00" for quantity in QUANTITIES}
        for varies, values in AXES.items()
        for value in values
        for index, name in enumerate(VARIANTS)
    ]
    svg = growth_figure(rows)
    assert svg.count("^1.00") == svg.count("^2.00") == 2 * len(AXES)
    assert all(name in svg for name in VARIANTS)
