"""The file names of a folder of images, packed, and kept from one start to the next.

Listing and sorting millions of names takes minutes on a slow disk. The index remembers them together with the time at which
each class folder last changed: a file that comes, goes or is renamed changes its folder's time, and then the folder is listed
again. A folder that changed less than `SETTLED_SECONDS` ago is not remembered: what comes to it in the same tick of the clock
would not show.

    index file = SHA-256 of the rest, then a JSON object, then every name followed by a zero byte, which no name contains

It lies below the user's cache directory, holds nothing that is executed, and is replaced as a whole; one that is damaged, of
another folder or of another version is passed over and written again. Names stay packed in memory too: 30 bytes an image
instead of 150, and a forked worker copies none of them; `benchmarks/bench_index.py` measures it.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subfour.durable import write_atomically

logger = logging.getLogger(__name__)

FORMAT = "subfour folder index 1"

SETTLED_SECONDS = 2.0
"""Coarsest time stamp of a common file system (FAT)."""

DIGEST_BYTES = 32


class FileNames:
    """A sequence of file names in one piece of memory."""

    def __init__(self, packed: bytes) -> None:
        """Take names, each followed by a zero byte."""
        self.packed = packed
        self._ends = np.flatnonzero(np.frombuffer(packed, np.uint8) == 0)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] + 1 if index else 0
        return os.fsdecode(self.packed[start : self._ends[index]])


def pack(names: Iterable[str]) -> bytes:
    """Return names as `FileNames` takes them."""
    return b"".join(os.fsencode(name) + b"\0" for name in names)


@dataclass(frozen=True, kw_only=True)
class FolderIndex:
    """The images of every split of a folder."""

    classes: tuple[str, ...]
    counts: Mapping[str, Sequence[int]]
    """Split -> images per class."""
    names: Mapping[str, FileNames]
    """Split -> file names, class by class."""


def index_file(root: Path) -> Path:
    """Return where the index of a folder is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "subfour" / "folders" / hashlib.sha256(os.fsencode(root.resolve())).hexdigest()


def folder_times(splits: Mapping[str, Sequence[Path]]) -> dict[str, list[list[Any]]]:
    """Return, per split, name and time of last change in ns of each class folder."""
    return {split: [[folder.name, folder.stat().st_mtime_ns] for folder in folders] for split, folders in splits.items()}


def read_index(file: Path, times: Mapping[str, Sequence[Sequence[Any]]]) -> FolderIndex | None:
    """Return the index in a file, or None if there is none of just these folders and times."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
        return None
    header, _, packed = content[DIGEST_BYTES:].partition(b"\0")
    record = json.loads(header)
    if record["format"] != FORMAT or record["times"] != times:
        return None
    names, start = {}, 0
    for split, size in record["sizes"].items():
        names[split] = FileNames(packed[start : start + size])
        start += size
    return FolderIndex(classes=tuple(record["classes"]), counts=record["counts"], names=names)


def write_index(file: Path, index: FolderIndex, times: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """Keep an index, unless a folder changed just now; where nothing can be written, a warning says so."""
    latest = max(changed for folders in times.values() for _, changed in folders)
    if time.time() - latest / 1e9 < SETTLED_SECONDS:
        return
    record = {
        "format": FORMAT,
        "times": times,
        "classes": index.classes,
        "counts": index.counts,
        "sizes": {split: len(names.packed) for split, names in index.names.items()},
    }
    content = b"\0".join([json.dumps(record).encode(), b"".join(names.packed for names in index.names.values())])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, hashlib.sha256(content).digest() + content)
    except OSError as error:
        logger.warning("%s: the index of the images cannot be kept (%s); every start will list them", file, error.strerror)
