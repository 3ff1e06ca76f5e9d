import math
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from subfour.train import interruption as module
from subfour.train.interruption import Interruption, Terminated


def test_sigterm_ends_at_once_where_nothing_can_be_lost():
    """And the handler of before comes back."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), Interruption().listening():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_while_deferred_it_waits_for_a_place_between_two_batches():
    """The batch under way is finished; after it there is none."""
    interruption, done = Interruption(), []

    def work(batch: int) -> None:
        if batch == 2:
            signal.raise_signal(signal.SIGTERM)
        done.append(batch)

    with interruption.listening(), interruption.deferred(), pytest.raises(Terminated):
        list(map(work, interruption.heed(range(5))))
    assert done == [0, 1, 2]


def test_without_a_signal_every_batch_comes():
    assert list(Interruption().heed(range(3))) == [0, 1, 2]


def test_another_thread_cannot_listen_and_does_not_fail():
    """Python lets the main thread alone have handlers."""
    entered = []

    def work() -> None:
        with Interruption().listening():
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]


def test_a_checkpoint_is_due_after_the_minutes_asked_for(monkeypatch: pytest.MonkeyPatch):
    """Counted from the last one; never, if none are asked for."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    interruption, never, always = Interruption(2), Interruption(), Interruption(0)
    assert [entry.checkpoint_due() for entry in (interruption, never, always)] == [False, False, True]
    now[0] += 120
    assert [entry.checkpoint_due() for entry in (interruption, never, always)] == [True, False, True]
    interruption.checkpoint_written()
    assert not interruption.checkpoint_due()


@pytest.mark.parametrize("minutes", [-1, math.nan])
def test_what_is_no_time_is_refused(minutes: float):
    with pytest.raises(ValueError, match=r"checkpoint_minutes: .+ is not possible; use 0 or more"):
        Interruption(minutes)


def test_a_worker_that_dies_of_the_same_sigterm_is_no_error(monkeypatch: pytest.MonkeyPatch):
    """A cluster tells every process of a group to end, and torch raises for its dead worker: that is ours to expect."""
    interruption = Interruption()

    def batches() -> Iterator[int]:
        yield 0
        raise RuntimeError("DataLoader worker is killed by signal: Terminated")

    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(interruption.heed(batches()))
    # The worker died first, our own signal comes a moment later.
    monkeypatch.setattr(module.time, "sleep", lambda _: signal.raise_signal(signal.SIGTERM))
    with interruption.listening(), interruption.deferred(), pytest.raises(Terminated):
        list(interruption.heed(batches()))


GROUP = """
import os, signal, sys, warnings
from torch.utils.data import DataLoader
from subfour.train.interruption import Interruption, Terminated
warnings.filterwarnings("ignore", "This DataLoader will create")  # on a machine with one core
interruption = Interruption()
with interruption.listening(), interruption.deferred():
    try:
        for number, batch in enumerate(interruption.heed(DataLoader(range(10_000), batch_size=1, num_workers=2))):
            if number == 5:
                os.killpg(0, signal.SIGTERM)
    except Terminated:
        sys.exit(143)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups")
def test_a_process_group_with_real_workers_is_told_to_end():
    """Nothing hangs, nothing is printed."""
    child = subprocess.run([sys.executable, "-c", GROUP], capture_output=True, start_new_session=True, timeout=120, check=False)
    assert (child.returncode, child.stderr) == (143, b"")
