"""Whether the fields of a dataclass hold what their annotations say; Python never asks."""

import dataclasses
import reprlib
import sys
from fractions import Fraction
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

IN_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Fraction: "a share such as 1/3",
    NoneType: "nothing",
}


def check_types(part: "DataclassInstance", section: str = "") -> None:
    """Raise unless every field is of its annotated type, or one of its choices.

    Args:
        part: a dataclass of plain values, tuples of them, and dataclasses, which check themselves.
        section: what stands before the names of its fields.

    Raises:
        ValueError: a field is not; the message says what is allowed.
    """
    for entry in dataclasses.fields(part):
        value = getattr(part, entry.name)
        if not _fits(value, entry.type):
            raise ValueError(f"{section}{entry.name}: {reprlib.repr(value)} is not possible; use {_in_words(entry.type)}")


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = _opened(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(entry, parts[0]) for entry in value)
    if isinstance(value, bool):  # to Python it is an int
        return origin is bool
    if origin is float:
        return isinstance(value, float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)
    return isinstance(value, origin)


def _in_words(kind: Any) -> str:
    origin, parts = _opened(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, parts))
    if origin is Literal:
        return " or ".join(parts)
    if origin is tuple:
        return f"a list, each entry {_in_words(parts[0])}"
    return IN_WORDS.get(origin) or f"a {origin.__name__}"


def _opened(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return what a type is made of: Union, Literal, tuple or a plain class, and its parts."""
    if get_origin(kind) is Annotated:
        return _opened(get_args(kind)[0])
    return get_origin(kind) or kind, get_args(kind)
