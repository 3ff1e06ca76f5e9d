"""Whether a file holds the numbers that its run gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from subfour.export.graph import SCALAR


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
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in expected.graph.initializer}
    known = _scalars_alike(given, stored)
    for name, values in given.items():
        found = stored.get(name)
        if found is None and name in known:
            continue
        if found is None:
            raise ValueError(
                f"run: it gives {name}, which the file has not; name the run that {path} was exported from, or export it "
                "again if another version of subfour wrote it"
            )
        if not _alike(found, values):
            raise ValueError(f"run: it gives another {name} than the file has; name the run that {path} was exported from")


def _scalars_alike(given: Mapping[str, NDArray[Any]], stored: Mapping[str, NDArray[Any]]) -> set[str]:
    """Return the names of scalars that the file has not, if it has as many others of the same values but for last bits.

    A scalar is named after its value (`Graph.scalar`), so that another last bit is another name.
    """
    missing, others = (
        sorted((float(values[name]), name) for name in values.keys() - there.keys() if name.startswith(SCALAR))
        for values, there in ((given, stored), (stored, given))
    )
    alike = _alike(np.array([value for value, _ in missing]), np.array([value for value, _ in others]))
    return {name for _, name in missing} if alike else set()


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and np.allclose(one.astype(np.float64), other.astype(np.float64), rtol=1e-5, atol=1e-8)
