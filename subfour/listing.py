"""A list in a message: the first few, and how many more there are."""

from collections.abc import Sequence

SHOWN = 3


def listed(names: Sequence[str]) -> str:
    """Return the names, or the first three of more.

    >>> listed("abcde")
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
