"""Checkpoints that survive a kill, a full disk and a flipped bit, and that execute nothing when read.

One file per checkpoint, `checkpoint-<number>-<SHA-256>.safetensors`: a plain safetensors file with the state as JSON in its
metadata, so that tensors and state cannot be of different moments, and any safetensors reader can look inside. One that was
made on the way to the next number, in the middle of an epoch, is `checkpoint-<number>-step-<step>-<SHA-256>.safetensors`. The
checksum of the whole file is its name, because a file cannot hold its own: `sha256sum` checks it by hand. The rename
that gives the file its name is the commit: before it there is no new checkpoint, after it a whole one, and the old ones
are deleted only then. The same tensors and state always give the same bytes.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from subfour import collective
from subfour.durable import write_atomically
from subfour.rundir import JSON

logger = logging.getLogger(__name__)

FILE_NAME = re.compile(r"checkpoint-(\d+)(?:-step-(\d+))?-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A moment of a training, as read back."""

    number: int
    """Its place among the run's checkpoints."""
    tensors: dict[str, Tensor]
    """On the CPU, contiguous, no two sharing memory."""
    state: dict[str, Any]
    """As JSON gives it: tuples have become lists."""
    step: int = 0
    """Steps beyond that place; 0 for a checkpoint that ends an epoch."""


KEPT = 2
"""Checkpoints: one of them may be damaged."""


class CheckpointStore:
    """A folder with the newest checkpoints of one run. One process writes: with several workers, the main one."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; `save` makes it.

        Args:
            folder: holds the checkpoints and nothing else.
        """
        self.folder = folder

    def save(self, number: int, tensors: Mapping[str, Tensor], state: Mapping[str, JSON], *, step: int = 0) -> None:
        """Write a checkpoint, then delete those it makes superfluous; the newest that ends an epoch is always kept.

        Those further on go too: whoever saves again after falling back to an older one has left that future behind.

        Args:
            number: its place in the run, 0 or more: number and step are beyond those of the last one saved or loaded.
            tensors: any dtype, shape and device; of the memory layout only the values are kept.
            state: anything JSON can say.
            step: how far it is on the way to the next number.

        Raises:
            OSError: it cannot be written, the disk being full for one; the older ones are all kept.
        """
        if not collective.is_main():
            return
        data = _serialize(tensors, state)
        place = f"{number:06d}-step-{step:06d}" if step else f"{number:06d}"
        file = self.folder / f"checkpoint-{place}-{hashlib.sha256(data).hexdigest()}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".*.tmp"):  # of a kill while writing
                leftover.unlink()
            write_atomically(file, data)
        except OSError as error:
            reason = f"checkpoint {number} could not be written ({error.strerror}); the older ones are kept"
            raise OSError(error.errno, reason, str(self.folder)) from error
        there = self._newest_first()
        older = [path for path in there if _place(path) < (number, step)]
        whole_epochs = [path for path in (file, *older) if not _place(path)[1]]
        kept = {file, *older[: KEPT - 1], *whole_epochs[:1]}
        for path in there:
            if path not in kept:
                path.unlink()

    def drop_steps(self) -> None:
        """Delete the checkpoints in the middle of an epoch: the newest is one that ends an epoch again, or there is none."""
        for path in self._newest_first() if collective.is_main() else []:
            if _place(path)[1]:
                path.unlink()

    def has_any(self) -> bool:
        """Return whether a checkpoint was ever saved."""
        return bool(self._newest_first())

    def load_newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, or None if none was ever saved.

        A damaged one is passed over with a warning.

        Raises:
            ValueError: there are checkpoints, and every one is damaged.
        """
        files = self._newest_first()
        for file in files:
            try:
                return _read(file)
            except (OSError, ValueError) as error:
                logger.warning("checkpoint %s is damaged (%s); falling back to the one before it", file, error)
        if files:
            raise ValueError(f"{self.folder}: every checkpoint in it is damaged; restore one, or start anew with another --out")
        return None

    def _newest_first(self) -> list[Path]:
        files = [file for file in self.folder.glob("checkpoint-*") if FILE_NAME.fullmatch(file.name)]
        return sorted(files, key=lambda file: (_place(file), file.name), reverse=True)


def _serialize(tensors: Mapping[str, Tensor], state: Mapping[str, JSON]) -> bytes:
    # The copy makes contiguous what is channels_last or a view, and separate what is tied: safetensors refuses both.
    copies = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    return save(copies, {"state": json.dumps(state)})


def _read(file: Path) -> Checkpoint:
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() not in file.name:
        raise ValueError("its content does not have the checksum in its name")
    # safetensors gives the metadata of a file only, and the bytes are here: 8 bytes of length, then a JSON header.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    number, step = _place(file)
    return Checkpoint(number, load(data), json.loads(header["__metadata__"]["state"]), step)


def _place(file: Path) -> tuple[int, int]:
    """Return the number and the step in a file's name."""
    number, step = re.findall(r"checkpoint-(\d+)(?:-step-(\d+))?", file.name)[0]
    return int(number), int(step or 0)
