"""Memory that does not suffice, in one line: torch has several errors for it, and none says which option helps."""

from collections.abc import Iterator
from contextlib import contextmanager

STEP = (
    "a step needs more than there is; use a smaller batch: a smaller --schedule.batch-size or a larger --accumulate to train, a "
    "smaller --batch-size to evaluate or verify"
)
ADVICE = {
    "shared memory": "the processes that decode images need more of it; use --loading.workers 0, --workers 0 for evaluate, or "
    "give the machine more, as docker run --shm-size 8g does",
    "out of memory": STEP,
    "DefaultCPUAllocator": STEP,
}
"""What torch's message has -> what to do; the first that fits counts."""


@contextmanager
def memory_explained() -> Iterator[None]:
    """Turn torch's errors about memory into a `MemoryError` that says what to do; every other error passes.

    Raises:
        MemoryError: memory did not suffice.
    """
    try:
        yield
    except RuntimeError as error:
        for sign, advice in ADVICE.items():
            if sign in str(error):
                raise MemoryError(f"memory: {advice}") from error
        raise
