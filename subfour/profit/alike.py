"""Which runs can be compared: those of one network on the same images, and those that are the same but for some fields."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subfour.models.zoo import Architecture
from subfour.profit.config import RunConfig

STARTS = {"seed", "from_run", "weights", "starting_weight_bits"}
"""Fields in which runs may differ and still be compared: they say where a run starts."""


def differ_only_in(one: RunConfig, other: RunConfig, *names: str) -> bool:
    """Return whether two configurations are the same but for some fields, and where they start.

    Args:
        one: a configuration.
        other: another.
        names: of fields as the command line has them, such as "method" or "schedule.lr".
    """
    free = STARTS | {*names}
    values, others = _fields(one.to_json()), _fields(other.to_json())
    return all(values[name] == others[name] for name in values if name not in free)


def network_and_images(config: RunConfig) -> tuple[str, Architecture, str]:
    """Return what runs must share so that one can lose points against another."""
    return config.model, config.architecture, data_name(config.data)


def data_name(data: str) -> str:
    """Return the name of images, `cifar10` for `parquet:/here/or/there/cifar10`: where they lie is nobody's business."""
    return Path(data.partition(":")[2] or data).name


def _fields(values: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return the values of a configuration by the names that its options have."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _fields(value, f"{section}{name}.") if isinstance(value, dict) else {section + name: value}
    return found
