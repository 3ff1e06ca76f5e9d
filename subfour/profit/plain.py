"""A configuration as plain values, for JSON, and back: each field is there, known and of its kind, or an error names it."""

import dataclasses
import reprlib
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar, cast

from subfour.profit.fields import Share, parse_share
from subfour.profit.sections import OscillationConfig, ParallelConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Part = TypeVar("Part", bound="DataclassInstance")

BEFORE: dict[str, Any] = {
    "start": "none",
    "weight_granularity": "layer",
    "batchnorm": "unfused",
    "skip_bits": 32,
    "activation_start": "percentile",
    "snap": False,
    "engine": "plain",
    "loading.cutout": 0,
    "loading.resize_size": None,
    "loading.interpolation": None,
    "loading.mean": None,
    "loading.std": None,
    "loading.unreadable": "error",
    "schedule.float_sizes": [],
    "schedule.snap_epochs": 1,
    "schedule.snap_lr": 0.001,
    "schedule.evaluations": 1,
    "profit.sample_stride": 1,
    "oscillation": dataclasses.asdict(OscillationConfig()),
    "parallel": dataclasses.asdict(ParallelConfig()),
}
"""Fields that came later, with what runs did before there were any: model files and run directories without them are read."""

RETIRED = {"profit.sample_every"}
"""Fields of earlier versions that decided only how a run was trained: a finished one is read without them."""

_NEVER = object()


def to_plain(value: Any) -> Any:
    """Return dicts, lists and what JSON has; a fraction becomes text."""
    if dataclasses.is_dataclass(value):
        return {entry.name: to_plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_plain(entry) for entry in value]
    return str(value) if isinstance(value, Fraction) else value


def from_plain(kind: type[Part], data: object, section: str = "") -> Part:
    """Build a configuration, or a section of one, from what `to_plain` gave.

    Args:
        kind: its class.
        data: anything that JSON can hold.
        section: what stands before the names of its fields.

    Raises:
        ValueError: a field is missing, unknown, or has a value that is not allowed.
    """
    where = section.rstrip(".") or "config"
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: {reprlib.repr(data)} is not possible; use an object with its fields")
    fields = {entry.name: entry.type for entry in dataclasses.fields(kind)}
    for name in data:
        if name not in fields and section + name not in RETIRED:
            raise ValueError(
                f"{where}: {reprlib.repr(name)} is no field in this version of subfour; remove it, or use a newer one"
            )
    values = {name: data[name] if name in data else _before(section + name) for name in fields}
    return kind(**{name: _value(field, values[name], section + name) for name, field in fields.items()})


def without_later(values: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return plain values without the fields that came later and say what runs did before: the same for runs of both times.

    Args:
        values: from `to_plain`.
        section: what stands before the names of its fields.
    """
    kept = {name: value for name, value in values.items() if BEFORE.get(section + name, _NEVER) != value}
    return {name: without_later(value, f"{name}.") if isinstance(value, dict) else value for name, value in kept.items()}


def _before(name: str) -> Any:
    if name not in BEFORE:
        raise ValueError(f"{name}: missing from the configuration; restore it")
    return BEFORE[name]


def _value(kind: Any, value: Any, name: str) -> Any:
    """Return a field's value: sections are built, lists become tuples; what does not fit stays, and its class refuses it."""
    if dataclasses.is_dataclass(kind):
        return from_plain(cast("type[DataclassInstance]", kind), value, f"{name}.")
    if not isinstance(value, list):
        return value
    return tuple(_share(entry, name) if kind == tuple[Share, ...] and isinstance(entry, str) else entry for entry in value)


def _share(text: str, name: str) -> Fraction:
    try:
        return parse_share(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
