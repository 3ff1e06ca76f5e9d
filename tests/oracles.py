"""Cases recorded from the authors' code; they lie beside the repository, and tests skip where they are not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

FILE = Path(__file__).parents[2] / "shared" / "oracles" / "quantizers.json"


def cases(section: str) -> list[Any]:
    """Return the cases of a section as pytest parameters, or one that skips."""
    if not FILE.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"{FILE} is not there"))]
    found = json.loads(FILE.read_text())[section]
    return [pytest.param(case, id="-".join(str(case[key]) for key in ("kind", "bits") if key in case)) for case in found]


def tensor(case: dict[str, Any], name: str) -> Tensor:
    """Return a float32 tensor of a case in its shape."""
    shape = case.get(f"{name}_shape", case.get("shape", [-1]))
    return torch.tensor(case[name]).reshape(shape)


def assert_gradients_close(found: Tensor, expected: Tensor, largest: float) -> None:
    """Check |difference| <= 1e-5 * the largest gradient of the case."""
    assert (found - expected).abs().max() <= 1e-5 * largest
