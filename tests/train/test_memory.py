import pytest
import torch

from subfour.train.memory import memory_explained


def test_a_step_that_is_too_large_says_what_helps():
    """A real allocation of a petabyte."""
    with pytest.raises(MemoryError, match=r"memory: a step needs more .* smaller --schedule.batch-size"), memory_explained():
        torch.empty(2**50, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "a smaller --schedule.batch-size"),
        (
            RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
                "shared memory. Please try to raise your shared memory limit."
            ),
            "--loading.workers 0",
        ),
    ],
)
def test_what_torch_says_elsewhere(error: RuntimeError, said: str):
    with pytest.raises(MemoryError, match=said), memory_explained():
        raise error


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory_explained():
        torch.ones(2, 3) @ torch.ones(2, 3)
