"""Damage in JSON that still is JSON."""

from typing import Any

import pytest

from subfour.json_shape import Shape, check_shape

SHAPE: Shape = {"name": str, "rows": [{"top1": float, "bits": int}]}
SOUND = {"name": "digits", "rows": [{"top1": 90, "bits": 4, "more": None}], "free": []}


def test_what_has_the_shape_passes():
    check_shape(SOUND, SHAPE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ([], "it is not a table"),
        ({"rows": SOUND["rows"]}, "it has no 'name'"),
        (SOUND | {"name": None}, "name is not a text"),
        (SOUND | {"rows": {}}, "rows is not a list"),
        (SOUND | {"rows": []}, "rows is empty"),
        (SOUND | {"rows": [{"top1": 1.0, "bits": 4}, {"bits": 4}]}, r"rows\[1\] has no 'top1'"),
        (SOUND | {"rows": [{"top1": "90", "bits": 4}]}, r"rows\[0\].top1 is not a number"),
        (SOUND | {"rows": [{"top1": 90.0, "bits": 4.5}]}, r"rows\[0\].bits is not a whole number"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(damage: Any, message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_shape(damage, SHAPE)
