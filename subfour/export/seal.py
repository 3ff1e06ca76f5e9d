"""A checksum inside an exported file, so that a flipped bit anywhere in it is noticed before any runtime reads it.

ONNX has none: a weight could change in silence. The record in the metadata ends with the SHA-256 of all bytes of the file, those
of the checksum itself counted as zeros. Nothing has to be parsed to check it; imports neither torch nor onnx.
"""

import hashlib
import re

UNSEALED = "0" * 64
"""What stands in the record until the file is sealed, and while it is checked."""

_PLACE = re.compile(rb'"sha256": "([0-9a-f]{64})"')


def seal(content: bytes) -> bytes:
    """Return a file's bytes with their checksum in its place."""
    assert _written(content) == UNSEALED, "a file is sealed once, and its record has a place for the checksum"
    return _with_checksum(content, _checksum(content))


def is_sealed(content: bytes) -> bool | None:
    """Return whether a file's bytes have the checksum they hold; None where they hold none."""
    written = _written(content)
    return None if written is None else written == _checksum(_with_checksum(content, UNSEALED))


def _written(content: bytes) -> str | None:
    found = _PLACE.search(content)
    return None if found is None else found[1].decode()


def _with_checksum(content: bytes, checksum: str) -> bytes:
    return _PLACE.sub(f'"sha256": "{checksum}"'.encode(), content, count=1)


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
