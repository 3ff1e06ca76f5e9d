"""Where the time of a run goes: every second of it belongs to one part.

data         waiting for the next batch of an epoch
step         the training step but for the four below
teacher      its forward pass
average      the weight average's step
sampling     AIWQ
evaluation   both sets of weights, after an epoch
statistics   of batch norm, computed anew before the last row of a run
checkpoint   written after an epoch
between      the rest after an epoch
entering     a phase: calibration, the network's twin, the teacher
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from torch import Tensor

from subfour.data.loader import TrainingLoader
from subfour.profit.examination import Examiner
from subfour.profit.instability_meter import InstabilityMeter
from subfour.train.average import WeightAverage
from subfour.train.checkpoint import CheckpointStore
from subfour.train.distill import Teacher

METHODS: dict[str, tuple[type, *tuple[str, ...]]] = {
    "teacher": (Teacher, "__call__"),
    "average": (WeightAverage, "update"),
    "evaluation": (Examiner, "raw_and_averaged"),
    "statistics": (Examiner, "reestimated"),
    "checkpoint": (CheckpointStore, "save"),
    "sampling": (InstabilityMeter, "_look", "_pass_done"),
}
"""Part -> what it is the time of."""


class Seconds(NamedTuple):
    """Time by two clocks."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Seconds":
        """Read the clocks."""
        return cls(time.perf_counter(), time.process_time())


class RecipeClock:
    """Time by parts; the innermost part that is open gets it."""

    def __init__(self) -> None:
        """Begin outside of everything."""
        self._spent: dict[str, Seconds] = defaultdict(lambda: Seconds(0.0, 0.0))
        self._open = ["entering"]
        self._last = Seconds.now()

    def _charge(self) -> None:
        now, so_far = Seconds.now(), self._spent[self._open[-1]]
        self._spent[self._open[-1]] = Seconds(so_far.wall + now.wall - self._last.wall, so_far.cpu + now.cpu - self._last.cpu)
        self._last = now

    def turn_to(self, part: str) -> None:
        """Charge what passed, and give what follows to a part, outside of all others."""
        self._charge()
        self._open = [part]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Give the length of a `with` block to a part."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    @property
    def in_step(self) -> bool:
        """Whether an epoch's steps are under way."""
        return self._open[0] == "step"

    def read(self) -> dict[str, Seconds]:
        """Return what was spent since the last time."""
        self._charge()
        spent, self._spent = dict(self._spent), defaultdict(lambda: Seconds(0.0, 0.0))
        return spent

    def skip(self) -> None:
        """Leave out what passed since the last reading."""
        self._charge()
        self._spent.clear()


@contextmanager
def watched(clock: RecipeClock) -> Iterator[None]:
    """Have a clock know the parts of whatever runs inside a `with` block.

    Args:
        clock: is told.
    """

    def timed(part: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with clock.part(part):
                return plain(*arguments, **options)

        return call

    def batches(*arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        rest = epoch(*arguments, **options)
        while True:
            with clock.part("data") if clock.in_step else ExitStack():
                batch = next(rest, None)
            if batch is None:
                return
            yield batch

    epoch = TrainingLoader.epoch
    with ExitStack() as patches:
        for part, (owner, *names) in METHODS.items():
            for name in names:
                patches.enter_context(patch.object(owner, name, timed(part, getattr(owner, name))))
        patches.enter_context(patch.object(TrainingLoader, "epoch", batches))
        yield
