"""Whether a file holds the numbers that its run gives."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def check_constants(model: onnx.ModelProto, expected: onnx.ModelProto, *, path: Path) -> None:
    """Check that a file holds the numbers that its run gives, but for last bits, in which another machine may fold differently.

    Args:
        model: what the file holds.
        expected: what the run gives.
        path: of the file.

    Raises:
        ValueError: it was exported from something else; the message names the first constant that differs.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for tensor in expected.graph.initializer:
        found = stored.get(tensor.name)
        if found is None:
            raise ValueError(
                f"run: it gives {tensor.name}, which the file has not; name the run that {path} was exported from, or export it "
                "again if another version of subfour wrote it"
            )
        if not _alike(found, numpy_helper.to_array(tensor)):
            raise ValueError(f"run: it gives another {tensor.name} than the file has; name the run that {path} was exported from")


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and np.allclose(one.astype(np.float64), other.astype(np.float64), rtol=1e-5, atol=1e-8)
