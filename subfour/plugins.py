"""Quantizers and networks that other installed packages bring, found by Python's entry points.

    [project.entry-points."subfour.quantizers"]    in the other package's pyproject.toml
    NAME = "module:PAIR"

Each is known here as DISTRIBUTION/NAME. Nothing of a package is imported before one of its names is asked for, and only what is
installed can be: a file that holds such a name does not bring its code along.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

Group = Literal["quantizers", "models"]
"""What a package can bring."""


@cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """Return what other packages bring, by DISTRIBUTION/NAME."""
    return {f"{entry.dist.name}/{entry.name}": entry for entry in entry_points(group=f"subfour.{group}") if entry.dist}


def distributions() -> set[str]:
    """Return which packages bring anything."""
    return {name.partition("/")[0] for group in get_args(Group) for name in plugins(group)}


def load_plugin(group: Group, name: str) -> Any:
    """Return what an entry point names.

    Args:
        group: what it is.
        name: DISTRIBUTION/NAME, one of `plugins`.

    Raises:
        ValueError: the other package fails when it is imported.
    """
    entry = plugins(group)[name]
    try:
        return entry.load()
    except Exception as error:  # whatever is wrong in the other package
        raise ValueError(
            f"{group.removesuffix('s')}: {name}, which is {entry.value}, cannot be loaded: {type(error).__name__}: {error}"
        ) from error
