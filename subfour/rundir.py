"""One run directory: everything a run is told, says and leaves behind, in plain files.

    config.json        the resolved config                   plan.json       the phases, before anything trains
    environment.json   machine, versions, commit, command    metrics.jsonl   one line per record, appended
    result.json        what came out; there when the run is finished

The rest (class names, checkpoints) is the caller's. A JSON file is replaced as a whole or not at all, so whoever reads a
run, however it was killed, finds no half of a file; of metrics.jsonl only the last line can be torn. Numbers that
are not finite are written as Python's json does (NaN, Infinity), because a diverged run must be able to say so.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

from subfour.durable import TakenError, file_above, lock, locked, write_atomically
from subfour.json_shape import Shape, check_shape
from subfour.listing import listed

CONFIG_FILE = "config.json"
"""What makes a folder a run: its resolved configuration."""

RESULT_FILE = "result.json"
"""What makes a run finished."""

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""What `json` can write. Reading gives lists and dicts."""

ESCAPED = "backslashreplace"
"""How JSON is encoded: of a file name that is not UTF-8 Python has made surrogates, and writes each as JSON's own escape."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run directory."""
    return (folder / CONFIG_FILE).is_file()


class RunDirectory:
    """A folder that holds one run; made by `create` or `open`."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """Name the folder without touching it.

        Args:
            path: the folder.
            writes: whether this process is the one that writes; all writing methods of another one do nothing.
        """
        self.path, self.writes = path, writes

    @classmethod
    def create(cls, path: Path, config: Mapping[str, JSON], records: Mapping[str, JSON] | None = None) -> "RunDirectory":
        """Make the folder of a new run.

        Args:
            path: the folder; its parents are made too.
            config: the resolved config.
            records: other JSON files, by name. They are written before config.json, which makes the folder a run.

        Raises:
            ValueError: the path is a file; or, as `TakenError`, the folder is taken.
        """
        run = cls(path)
        run.require_free(config)
        path.mkdir(parents=True, exist_ok=True)
        with run.locked():  # two may begin at once
            run.require_free(config)
            for name, data in (records or {}).items():
                run.write_json(name, data)
            run.write_json(CONFIG_FILE, config)
        return run

    def require_free(self, config: Mapping[str, JSON]) -> None:
        """Check that a run may begin here.

        Raises:
            TakenError: the folder holds a run already, of this or of another config.
            ValueError: the path is a file.
        """
        if file := file_above(self.path):
            raise ValueError(f"--out {self.path}: {file} is a file; choose another --out")
        if not is_run(self.path):
            return
        differences = list(_differences(self.read_json(CONFIG_FILE), json.loads(json.dumps(config))))
        if differences:
            raise TakenError(
                f"--out {self.path}: it holds a run with another config: {listed(differences)}; "
                f"continue that run with --resume {self.path}, or choose another --out"
            )
        state = "finished" if (self.path / RESULT_FILE).exists() else "unfinished"
        raise TakenError(f"--out {self.path}: it holds this very run, {state}; use --resume {self.path}, or choose another --out")

    @classmethod
    def open(cls, path: Path, *, writes: bool = True) -> "RunDirectory":
        """Return an existing run.

        Args:
            path: the folder.
            writes: see `RunDirectory`.

        Raises:
            ValueError: the path is not a run directory.
        """
        run = cls(path, writes=writes)
        if not is_run(run.path):
            raise ValueError(f"{path}: not a run directory, it has no config.json; give the --out of a `subfour train`")
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from training into this directory; the system frees it however the process ends.

        See `locked`.

        Raises:
            TakenError: another process holds the lock.
        """
        with locked(self.path) if self.writes else nullcontext():
            yield

    @property
    def in_use(self) -> bool:
        """Whether another process trains into it now; where nothing can be locked, never."""
        try:
            with (self.path / ".lock").open() as file:
                lock(file, shared=True)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # it was never locked, or cannot be
            pass
        return False

    def write_json(self, name: str, data: JSON) -> None:
        """Write or replace a JSON file of the run.

        Args:
            name: the file's name, such as "plan.json".
            data: its content.
        """
        self.write_bytes(name, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode(errors=ESCAPED))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write or replace a file of the run; see `write_atomically`."""
        if self.writes:
            with self._named(self.path / name):
                write_atomically(self.path / name, data)

    @contextmanager
    def _named(self, file: Path) -> Iterator[None]:
        """Name the file that cannot be written, and what helps against a full disk."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                reason += f"; free some space, and {f'go on with --resume {self.path}' if is_run(self.path) else 'start again'}"
            raise OSError(error.errno, reason, str(file)) from error

    def read_json(self, name: str, shape: Shape | None = None) -> Any:
        """Return the content of a JSON file of the run.

        Args:
            name: of the file.
            shape: that its content must have, where that is not checked later.

        Raises:
            ValueError: the file is missing or damaged.
        """
        file = self.path / name
        try:
            data = json.loads(file.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"{file}: missing from the run directory") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: damaged, not JSON ({error})") from None
        if shape is not None:
            try:
                check_shape(data, shape)
            except ValueError as error:
                raise ValueError(f"{file}: damaged, {error}") from None
        return data

    @property
    def _metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    def append_metrics(self, record: Mapping[str, JSON]) -> None:
        """Append one line to metrics.jsonl; it is on the disk when this returns."""
        if not self.writes:
            return
        with self._named(self._metrics_file), self._metrics_file.open("ab") as file:
            file.write((json.dumps(record, ensure_ascii=False) + "\n").encode(errors=ESCAPED))
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """Return every record of metrics.jsonl; a last line torn by a kill is left out.

        Raises:
            ValueError: another line is damaged.
        """
        if not self._metrics_file.exists():
            return []
        *lines, _torn = self._metrics_file.read_bytes().split(b"\n")
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{self._metrics_file}: line {number} is damaged ({error})") from None
        return records

    @property
    def metrics_size(self) -> int:
        """Size of metrics.jsonl in bytes, for a checkpoint to remember."""
        return self._metrics_file.stat().st_size if self._metrics_file.exists() else 0

    def truncate_metrics(self, size: int) -> None:
        """Drop what was appended after a checkpoint, torn line included.

        Args:
            size: `metrics_size` at that checkpoint, in bytes; 0 when there is none.

        Raises:
            ValueError: the file is shorter than that.
        """
        if not self.writes:
            return
        if size > self.metrics_size:
            raise ValueError(
                f"{self._metrics_file}: damaged, {self.metrics_size} bytes long where the checkpoint saw {size}; "
                "restore the file, or start anew with another --out"
            )
        with self._metrics_file.open("ab") as file:
            file.truncate(size)


_ABSENT = object()


def _differences(there: object, here: object, name: str = "") -> Iterator[str]:
    """Name each field in which two configs differ, dotted, with both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in there | here:
            yield from _differences(there.get(key, _ABSENT), here.get(key, _ABSENT), f"{name}.{key}" if name else key)
    elif there != here:
        shown = ["absent" if value is _ABSENT else json.dumps(value) for value in (there, here)]
        yield f"{name} ({shown[0]} there, {shown[1]} here)"
