"""When a checkpoint is due in the middle of an epoch: some minutes after the last one, and when the process is told to end.

A scheduler that takes a machine away sends SIGTERM, waits some seconds and kills. While `deferred`, SIGTERM only leaves a note,
which the training heeds between two batches, where what it has done so far can be written down; at any other time there is
nothing to lose, and it ends the process at once.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Batch = TypeVar("Batch")

GROUP_SECONDS = 1.0
"""How long to wait for this process's own SIGTERM after a decoding worker has died: it may be one for the whole group."""


class Terminated(BaseException):
    """The process was told to end by SIGTERM. Like KeyboardInterrupt no Exception, so that nobody mistakes it for an error."""


class WorkerLostError(Exception):
    """Another worker has gone, and without it there is no next step."""


class Interruption:
    """What may stop a training between two batches, or only make it write a checkpoint."""

    def __init__(self, checkpoint_minutes: float = math.inf, agree: Callable[[bool], bool] = bool) -> None:
        """Begin to count.

        Args:
            checkpoint_minutes: from one checkpoint to the next; 0: a checkpoint after every step.
            agree: with several workers, `collective.anyone`: all stop, and write, where one of them is to.

        Raises:
            ValueError: that is no time.
        """
        if not checkpoint_minutes >= 0:
            raise ValueError(f"checkpoint_minutes: {checkpoint_minutes} is not possible; use 0 or more, or inf for none")
        self.seconds = 60 * checkpoint_minutes
        self.agree = agree
        self.requested = False
        self._deferred = False
        self._last = time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turn SIGTERM into `Terminated` for the length of a `with` block; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._told)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let SIGTERM wait for `check` or `heed` for the length of a `with` block."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _told(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.requested = True
        if not self._deferred:
            raise Terminated

    def checkpoint_due(self) -> bool:
        """Return whether it is time for a checkpoint."""
        return self.agree(time.monotonic() - self._last >= self.seconds)

    def checkpoint_written(self) -> None:
        """Begin to count again."""
        self._last = time.monotonic()

    def check(self) -> None:
        """Stop here, if that was asked for, of this worker or of another.

        Raises:
            Terminated: it was.
        """
        if self.agree(self.requested):
            raise Terminated

    def heed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches; between two of them, `check`.

        Raises:
            Terminated: the process was told to end, or so were the workers that make the batches, with it.
        """
        iterator = iter(batches)
        while True:
            self.check()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except RuntimeError:  # torch's, for a process that decodes: a SIGTERM for the whole process group reaches it too
                time.sleep(GROUP_SECONDS)
                if self.requested:  # nobody is asked: this worker may be the only one that stands here
                    raise Terminated from None
                raise
            yield batch
