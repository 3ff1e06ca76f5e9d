"""What the fields of a configuration hold: bit widths and shares as options, and the checks of every section's fields."""

import dataclasses
import math
from collections.abc import Collection
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import tyro

from subfour.annotations import check_types
from subfour.data.loader import LARGEST_COUNT

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BitWidth = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="2..8|32",
        instance_from_str=lambda words: int(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A width in bits: 2..8, or 32 for float. Whoever takes one checks it, with the option's name in the message."""

Share = Annotated[
    Fraction,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FRACTION",
        instance_from_str=lambda words: parse_share(words[0]),
        is_instance=lambda value: isinstance(value, Fraction),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A share between 0 and 1, such as 1/3."""


def parse_share(text: str) -> Fraction:
    """Read a fraction.

    Raises:
        ValueError: the text is not a fraction.
    """
    try:
        if "e" in text.lower():  # 1e999999999 has a billion digits
            raise ValueError
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a fraction; write it like 1/3 or 0.5") from None


def check_fields(
    part: "DataclassInstance",
    section: str,
    *,
    positive: Collection[str] = (),
    not_negative: Collection[str] = (),
    share: Collection[str] = (),
) -> None:
    """Check that every field is of its type, and that the named ones are finite numbers in their range, or None.

    The command line knows types and choices too, but a configuration also comes from Python and from JSON.

    Args:
        part: the configuration, or one of its sections.
        section: what a message puts before the field's name, such as "schedule.".
        positive: fields greater than 0.
        not_negative: fields of 0 or more.
        share: fields between 0 and 1.

    Raises:
        ValueError: a value is not allowed.
    """
    check_types(part, section)
    for entry in dataclasses.fields(part):
        name, value = section + entry.name, getattr(part, entry.name)
        if value is None:
            continue
        if isinstance(value, int) and entry.name != "seed" and abs(value) > LARGEST_COUNT:
            raise ValueError(f"{name}: {value} is not possible; use {LARGEST_COUNT} at most")
        if entry.name in positive and not 0 < value < math.inf:
            raise ValueError(f"{name}: {value} is not possible; use a number greater than 0")
        if entry.name in not_negative and not 0 <= value < math.inf:
            raise ValueError(f"{name}: {value} is not possible; use 0 or more")
        if entry.name in share and not 0 < value < 1:
            raise ValueError(f"{name}: {value} is not possible; use a number between 0 and 1")
