from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# No deadline: the machine may be busy. Derandomized: the same commit gives the same verdict.
settings.register_profile("subfour", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("many", deadline=None, derandomize=True, max_examples=1000)
settings.load_profile("subfour")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is kept between two starts out of the user's cache directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Compute with one thread, in processes of their own too, so that what is compared bit for bit was summed in one order."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
