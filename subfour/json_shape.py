"""What JSON must hold for whoever reads it: asked once, so that damage is named where the file is opened."""

from typing import Any, TypeAlias

Shape: TypeAlias = type | dict[str, Any] | list[Any]
"""A type; entries that a table must have, others being free; or what each entry of a list, of one or more, must be."""

IN_WORDS = {dict: "a table", list: "a list", str: "a text", int: "a whole number", float: "a number"}


def check_shape(value: Any, shape: Shape, place: str = "") -> None:
    """Raise where a value is not what a shape says.

    >>> check_shape({"rows": [{"top1": 90}]}, {"rows": [{"top1": float}]})

    Args:
        value: of JSON.
        shape: that it must have.
        place: of the value, for the message.

    Raises:
        ValueError: something is missing or of another kind; the message says where.
    """
    where, kind = place or "it", shape if isinstance(shape, type) else type(shape)
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits:
        raise ValueError(f"{where} is not {IN_WORDS[kind]}")
    if isinstance(shape, dict):
        for name, inner in shape.items():
            if name not in value:
                raise ValueError(f"{where} has no {name!r}")
            check_shape(value[name], inner, f"{place}.{name}" if place else name)
    elif isinstance(shape, list):
        if not value:
            raise ValueError(f"{where} is empty")
        for index, entry in enumerate(value):
            check_shape(entry, shape[0], f"{place}[{index}]")
