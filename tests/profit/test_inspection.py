from pathlib import Path

import pytest
import torch

from subfour.profit.inspection import inspect_file, inspect_network
from subfour.profit.model_file import read_model
from tests.profit.conftest import FinishedRun
from tests.profit.quantized_networks import TINY

COLUMNS = ["name", "kind", "weight_bits", "input_bits", "quantizer", "pad_value", "zero_share", "source", "reason"]


def test_v3_large_has_all_its_layers():
    """62 convolutions, 16 of them squeeze-and-excitation, and two linear layers."""
    rows = inspect_network("torchvision/mobilenet_v3_large", weight_bits=4, activation_bits=4)
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == {"stem": 1, "depthwise": 15, "pointwise": 30, "se": 16, "linear": 2}
    assert all(list(row) == COLUMNS for row in rows)


def test_the_rows_say_what_the_paper_says():
    """8-bit inputs at the stem and in SE, weights n-bit everywhere, -3/8 at the border of what h-swish feeds."""
    rows = inspect_network(TINY, weight_bits=3, activation_bits=4)
    for row in rows:
        eight = row["kind"] in ("stem", "se")
        assert (row["weight_bits"], row["input_bits"]) == (3, 8 if eight else 4)
        assert ("keeps 8 bits" in row["reason"]) == eight
        assert row["pad_value"] == (-0.375 if row["kind"] == "depthwise" and row["quantizer"] == "DuQ hswish" else 0)
        assert row["source"]
    assert rows[0]["quantizer"] == "ImageQuantizer image"
    assert sum(row["pad_value"] != 0 for row in rows) >= 4
    assert sum(row["kind"] == "se" for row in rows) >= 4
    assert {row["pad_value"] for row in inspect_network(TINY, weight_bits=3, activation_bits=4, padding="zero")} == {0}
    pact = inspect_network(TINY, weight_bits=3, activation_bits=4, quantizer="pact-sawb")
    assert {row["quantizer"].split()[0] for row in pact[1:]} == {"PACT"}


def test_the_share_of_zeros():
    """Few at 8 bits, more at 2, unknown in float; the 2-bit range is fitted, or nearly all would be zero."""
    shares = {
        bits: [row["zero_share"] for row in inspect_network(TINY, weight_bits=bits, activation_bits=32)] for bits in (2, 8, 32)
    }
    assert set(shares[32]) == {None}
    assert all(few < 0.1 < more < 0.75 for few, more in zip(shares[8], shares[2], strict=True))


def test_a_width_that_is_not_possible_is_named():
    """Of either kind."""
    with pytest.raises(ValueError, match="bits: 9 bits is not possible"):
        inspect_network(TINY, weight_bits=9, activation_bits=4)
    with pytest.raises(ValueError, match="bits: 1 bits is not possible"):
        inspect_network(TINY, weight_bits=4, activation_bits=1)


@torch.no_grad()
def test_a_finished_run_shows_its_own_weights(finished: FinishedRun):
    """Widths of the run, and the zeros of its codes."""
    rows = inspect_file(finished.folder)
    assert rows == inspect_file(Path(finished.folder) / "model.safetensors")
    model = read_model(finished.folder).model
    for row in rows:
        layer = model.get_submodule(row["name"])
        assert list(row) == COLUMNS
        assert (row["weight_bits"], row["input_bits"]) == (3, 8 if row["kind"] in ("stem", "se") else 4)
        assert row["zero_share"] == pytest.approx((layer.quantized_weight() == 0).double().mean().item())
