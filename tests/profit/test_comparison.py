from collections.abc import Sequence

import pytest

from subfour.profit.comparison import compare_rows, paired_difference, points_lost


def result(top1: float, loss: float = 1.0, seconds: float = 60.0, commits: Sequence[str] = ("9c1d2e3a4b",)) -> dict[str, object]:
    rows = [{"widths": "A32W32", "averaged": {"top1": 0.0, "loss": 9.0}, "bytes": 9e9}]
    return {
        "seconds": seconds,
        "commits": commits,
        "rows": [*rows, {"widths": "A4W4", "averaged": {"top1": top1, "loss": loss}, "bytes": 2e6}],
    }


def test_mean_spread_and_points_lost_by_hand():
    """Lost: 90 - 88 and 93 - 87, paired with the better of the float rows of the seed; mean 4, error 2.83 / sqrt 2 = 2."""
    rows = compare_rows(
        {
            "float": {0: result(90.0), 1: result(91.0)},
            "control": {0: result(89.0), 1: result(93.0)},
            "row": {
                0: result(88.0, loss=0.5, seconds=120),
                1: result(87.0, loss=0.7, commits=["2ab4f00b1c"]),
                2: "diverged",
                3: "missing",
            },
        },
        {row: ["float", "control"] for row in ("float", "control", "row")},
    )
    assert [row["row"] for row in rows] == ["float", "control", "row"]
    assert rows[2] == {
        "row": "row",
        "widths": "A4W4",
        "seeds": 2,
        "diverged": 1,
        "missing": 1,
        "top1": 87.5,
        "top1_std": pytest.approx(0.5**0.5),
        "loss": pytest.approx(0.6),
        "lost": 4.0,
        "lost_error": pytest.approx(2.0),
        "minutes": 1.5,
        "megabytes": 2.0,
        "commits": "2ab4f00 9c1d2e3",
    }
    assert [row["lost"] for row in rows] == [1.0, 0.5, 4.0]


def test_points_are_not_lost_against_half_of_the_float_rows():
    """While the control of a seed is missing, what is lost is not known yet; one that diverged is not waited for."""
    for end, lost in (("missing", {1: 1.0}), ("diverged", {0: 2.0, 1: 1.0})):
        outcomes = {
            "float": {0: result(90.0), 1: result(89.0)},
            "control": {0: end, 1: result(88.0)},
            "row": {0: result(88.0), 1: result(88.0)},
        }
        assert points_lost(outcomes, ["float", "control"], "row") == lost


def test_without_two_seeds_there_is_no_spread_and_without_float_rows_nothing_is_lost():
    (row,) = compare_rows({"row": {0: result(88.0)}}, {"row": []})
    assert (row["top1"], row["top1_std"], row["lost"], row["lost_error"]) == (88.0, None, None, None)


def test_points_are_lost_by_seed_and_not_where_the_float_network_of_the_seed_lacks():
    outcomes = {"float": {0: result(90.0), 1: "missing"}, "row": {0: result(88.0), 1: result(87.0), 2: "diverged"}}
    assert points_lost(outcomes, ["float"], "row") == {0: 2.0}


def test_a_difference_is_paired_by_seed():
    """Differences 1 and 3: mean 2, deviation sqrt 2, error 1."""
    found = paired_difference({0: 5.0, 1: 9.0, 2: 100.0}, {0: 4.0, 1: 6.0, 3: 0.0})
    assert found == (2.0, pytest.approx(1.0), 2)
    assert found.in_words("above", "below", "lsq") == "2.00 \N{PLUS-MINUS SIGN} 1.00 above lsq"
    assert paired_difference({0: 5.0}, {1: 4.0}) is None


def test_one_seed_has_no_error_and_says_so():
    found = paired_difference({0: 4.0}, {0: 5.5})
    assert found is not None
    assert found.error is None
    assert found.in_words("above", "below", "lsq", 1) == "1.5 below lsq (one seed)"
