"""Kinds of values that a field can have: allowed ones, and ones that are not, as JSON holds them."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

LARGEST_COUNT = 2**31 - 1

WIDTHS = (32, 8, 7, 6, 5, 4, 3, 2)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)

JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
"""Anything that JSON can hold, and what Python's JSON adds: NaN and infinities."""


@dataclass(frozen=True)
class Values:
    """What a field may hold, what lies just beside, and how to tell."""

    allowed: SearchStrategy[Any]
    """As Python has them: tuples and fractions."""
    near: SearchStrategy[Any]
    allows: Callable[[Any], bool]
    """Of a value in JSON."""
    of_text: Callable[[str], Any] | None = None
    """How the command line reads a word; None: it takes every text, or none."""
    many: bool = False
    """Whether the option takes several words."""

    @property
    def refused(self) -> SearchStrategy[Any]:
        """Values in JSON that are not allowed."""
        return (self.near | JUNK).filter(lambda value: not self.allows(value))

    @property
    def refused_words(self) -> SearchStrategy[list[str]]:
        """Words of a command line that are not allowed, none of which begins like an option."""
        word = st.text(max_size=8) | self.near.filter(lambda value: not isinstance(value, list)).map(str)
        words = st.lists(word, min_size=1, max_size=3 if self.many else 1)
        return words.filter(lambda words: not any("\0" in word or word.startswith("-") for word in words)).filter(self._is_wrong)

    def _is_wrong(self, words: list[str]) -> bool:
        assert self.of_text is not None
        try:
            read = [None if word == "None" else self.of_text(word) for word in words]
        except (ValueError, ArithmeticError):
            return True
        if self.many:
            return not self.allows([str(entry) if isinstance(entry, Fraction) else entry for entry in read])
        return not self.allows(read[0])


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def or_none(values: Values) -> Values:
    return Values(
        st.none() | values.allowed, values.near, lambda value: value is None or values.allows(value), values.of_text, values.many
    )


def whole(least: int | None) -> Values:
    """Values of a count, or any where there is no least one."""
    if least is None:
        return Values(st.integers(), st.floats(-3, 3), is_whole, of_text=int)
    near = st.integers(max_value=least - 1) | st.integers(min_value=LARGEST_COUNT + 1) | st.floats(least, least + 3)
    return Values(
        st.integers(least, LARGEST_COUNT), near, lambda value: is_whole(value) and least <= value <= LARGEST_COUNT, of_text=int
    )


def number(low: float, high: float, *, low_itself: bool = False) -> Values:
    """Values of an open interval, or one that is closed below."""
    allowed = st.floats(low, high, exclude_min=not low_itself, exclude_max=True)
    beyond = [float("nan"), float("inf"), float("-inf"), 10**400, -(10**400), high]
    near = st.sampled_from(beyond if low_itself else [*beyond, low]) | st.floats(max_value=low, exclude_max=True)

    def allows(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) == 10**400:
            return False
        return low < value < high or (low_itself and value == low)

    return Values(allowed, near, allows, of_text=float)


def choice(*known: str) -> Values:
    return Values(
        st.sampled_from(known), st.sampled_from([known[0].upper(), f"{known[0]} ", ""]), known.__contains__, of_text=str
    )


def one_of_widths(*widths: int) -> Values:
    return Values(
        st.sampled_from(widths),
        st.sampled_from([0, 1, 9, 31, 33, -4, 4.0, "4"]),
        lambda value: is_whole(value) and value in widths,
        of_text=int,
    )


def falling(value: object) -> bool:
    """Return whether a value is a list of widths, each below the one before."""
    if not isinstance(value, list) or not value or not all(is_whole(bits) and bits in WIDTHS for bits in value):
        return False
    return value == sorted(set(value), reverse=True)


def fractions(value: object) -> list[Fraction] | None:
    """Return the fractions that a list has as text; None where it is another."""
    if not isinstance(value, list) or not all(isinstance(share, str) and "e" not in share.lower() for share in value):
        return None
    try:
        return [Fraction(share) for share in value]
    except (ValueError, ArithmeticError):
        return None


def up_to_one(value: object) -> bool:
    """Return whether a value is a list of shares as text, the last of them 1, or an empty list."""
    shares = fractions(value)
    return shares == [] or (bool(shares) and shares[-1] == 1 and all(0 < share <= 1 for share in shares))


def rising(value: object) -> bool:
    """Return whether a value is a list of shares as text, each above the one before."""
    shares = fractions(value)
    return bool(shares) and shares == sorted(set(shares)) and all(0 < share < 1 for share in shares)


widths = Values(
    st.lists(st.sampled_from(WIDTHS), min_size=1, unique=True).map(lambda bits: tuple(sorted(bits, reverse=True))),
    st.lists(st.sampled_from([*WIDTHS, 0, 1, 9, -4]), max_size=4),
    falling,
    of_text=int,
    many=True,
)
sizes = Values(
    st.lists(st.fractions(Fraction(1, 100), 1), max_size=3).map(lambda first: (*first, Fraction(1)) if first else ()),
    st.lists(st.sampled_from(["0", "1", "4/3", "-1/3", "1/0", "a third", "32", "1/3"]), max_size=3),
    up_to_one,
    of_text=Fraction,
    many=True,
)
shares = Values(
    st.lists(st.fractions(Fraction(1, 100), Fraction(99, 100)), min_size=1, max_size=4, unique=True).map(sorted).map(tuple),
    st.lists(st.sampled_from(["0", "1", "4/3", "-1/3", "1/0", "a third", "1e999999999", "1/3", "2/3"]), max_size=3),
    rising,
    of_text=Fraction,
    many=True,
)
strides = Values(
    st.lists(st.integers(min_value=1), max_size=5).map(tuple),
    st.lists(st.integers(max_value=1), min_size=1, max_size=3),
    lambda value: isinstance(value, list) and all(is_whole(stride) and stride >= 1 for stride in value),
    of_text=int,
    many=True,
)


def three(one: Values) -> Values:
    """Values for red, green and blue."""
    return Values(
        st.tuples(*[one.allowed] * 3),
        st.lists(one.allowed, max_size=5).filter(lambda values: len(values) != 3) | st.tuples(one.allowed, one.allowed, one.near),
        lambda value: isinstance(value, list) and len(value) == 3 and all(map(one.allows, value)),
        of_text=float,
        many=True,
    )


text = Values(st.text(), st.binary().map(list), lambda value: isinstance(value, str))
switch = Values(st.booleans(), st.sampled_from([0, 1, "true"]), lambda value: isinstance(value, bool))
positive = number(0, float("inf"))
not_negative = number(0, float("inf"), low_itself=True)
share = number(0, 1)
in_unit_interval = Values(
    st.floats(0, 1),
    st.sampled_from([-0.5, 1.5, float("nan")]),
    lambda value: not_negative.allows(value) and value <= 1,
    of_text=float,
)
