"""Files that a kill leaves whole, and a folder that one process writes into."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)


class TakenError(ValueError):
    """The folder holds a run already, or another process trains into it."""


def file_above(folder: Path) -> Path | None:
    """Return the file that stands where a folder should be made, or one above it; None where it can be."""
    return next((place for place in (folder, *folder.parents) if place.is_file()), None)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep every other process from writing into a folder; the system frees it however the process ends.

    Readers need no lock. Threads of one process do not exclude each other. Where the system or the file system has no
    POSIX locks, nothing is locked and a warning says so.

    Args:
        folder: it must exist.
        wait: for as long as another process holds the lock.

    Raises:
        TakenError: another process holds the lock, and this one does not wait.
    """
    with (folder / ".lock").open("a") as file:
        try:
            lock(file, wait=wait)
        except (BlockingIOError, PermissionError):
            raise TakenError(f"{folder}: another process trains into it; wait for its end, or choose another --out") from None
        except OSError as error:
            logger.warning("%s: cannot be locked (%s); do not let a second process write into it", folder, error)
        yield


def write_atomically(path: Path, data: bytes) -> None:
    """Write or replace a file so that a kill or a power cut at any moment leaves the old content or the new, whole.

    Raises:
        OSError: the disk is full or refuses; the old content is still there and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sys.platform != "win32":  # where a folder cannot be opened, a rename is durable by itself
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def lock(file: IO[str], *, wait: bool = False, shared: bool = False) -> None:
    """Lock a file for this process, or with those that only look; if another one has it, wait or raise at once."""
    if sys.platform == "win32":
        raise OSError("no fcntl on Windows")
    # A record lock, not flock: forked data workers would inherit the latter, and keep it when their parent is killed.
    fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
