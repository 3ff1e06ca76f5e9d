"""`--workers N`: this process starts N workers and waits; each runs the same command under torchrun's environment.

torchrun itself does the same, on one machine or several: `torchrun --nproc-per-node N -m subfour train ...`.
"""

import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from subfour import collective
from subfour.cli.main import LOST, STARTED
from subfour.environment import usable_cores
from subfour.train.interruption import Terminated, WorkerLostError
from subfour.train.parallel import workers_started

STOPPED: dict[int, type[BaseException]] = {130: KeyboardInterrupt, 143: Terminated}
"""What an exit code of a worker means for all."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Processes that train together."""

    workers: int = 1
    """Processes that train one network together, each on its share of every batch: one per GPU, or on CPUs."""

    def __post_init__(self) -> None:
        """Check the number, against torchrun's too."""
        started = workers_started()
        if self.workers < 1:
            raise ValueError(f"workers: {self.workers} is not possible; use 1 or more")
        if started and self.workers not in (1, started):
            raise ValueError(f"workers: torchrun has started {started} already; leave --workers out")

    @property
    def starts_others(self) -> bool:
        """Return whether this process is to start workers, not to be one."""
        return self.workers > 1 and not workers_started()


def how_to_resume(run: Path) -> str:
    """Return what to type when a run has stopped."""
    resume = f"train --resume {shlex.quote(str(run))}"
    if STARTED in os.environ:
        return f"go on with: subfour {resume} --workers {os.environ[STARTED]}"
    return f"go on with: {'torchrun ... -m ' if collective.count() > 1 else ''}subfour {resume}"


def start_workers(arguments: Sequence[str], workers: int) -> None:
    """Run `subfour train` with these arguments in every worker, and return when all are done.

    Raises:
        WorkerLostError: one was killed; the others were told to end.
        KeyboardInterrupt, Terminated: so were all.
        SystemExit: one could not go on, and has said why.
    """
    from torch.distributed.elastic.multiprocessing import SignalException  # noqa: PLC0415 (slow)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    logging.disable(logging.ERROR)  # torchrun says in pages what we say in a line
    os.environ[STARTED] = str(workers)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a warning that all parameters are in use
    os.environ.setdefault("OMP_NUM_THREADS", str(max(usable_cores() // workers, 1)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=workers,
        run_id=f"subfour-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "subfour", "train", *arguments)
    except SignalException as stop:
        raise STOPPED[130 if stop.sigval == signal.SIGINT else 143] from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        for rank, code in codes.items():
            if code < 0:
                lost = f"worker {rank} was ended by {signal.Signals(-code).name}, so the others ended too"
                raise WorkerLostError(lost) from None
        told = [code for code in codes.values() if code != LOST]
        if not told:
            raise WorkerLostError("the workers have lost their connection, and none says why") from None
        worst = max(told)
        if worst in STOPPED:
            raise STOPPED[worst] from None
        sys.exit(worst)
    finally:
        logging.disable(logging.NOTSET)
