from pathlib import Path

import bench_exactness
import exactness
import pytest
from table import read_rows

from subfour.export.comparison import Comparison

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "results" / "models" / "digits-w4a4.safetensors"


def rows(name: str, comparison: Comparison) -> list[dict[str, object]]:
    return [{"name": name, "format": "onnx", "constants": "snapped", "executor": "torch", "images": comparison.images}]


def test_rows_of_a_file_replace_those_of_the_same_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exactness, "TABLE", tmp_path / "exactness.csv")
    for name, images in (("one", 1), ("other", 2), ("one", 3)):
        exactness.record_rows(rows(name, Comparison(images=images)))
    assert [(row["name"], row["images"]) for row in read_rows(tmp_path / "exactness.csv")] == [("other", "2"), ("one", "3")]


@pytest.mark.slow
def test_a_trained_model_s_rows_say_that_every_executor_is_exact_once_it_is_snapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two images; `results/exactness.csv` has many."""
    monkeypatch.setattr(exactness, "TABLE", tmp_path / "exactness.csv")
    monkeypatch.setattr("sys.argv", ["", str(MODEL), "--data", "digits", "--images", "2", "--qonnx-images", "2"])
    bench_exactness.main()
    found = read_rows(tmp_path / "exactness.csv")
    assert {(row["format"], row["executor"]) for row in found if row["constants"] == "snapped"} == {
        *(("onnx", executor) for executor in ("torch", "reference", "onnxruntime", "openvino")),
        *(("qonnx", executor) for executor in ("qonnx", "reference")),
    }
    for row in found:
        if row["constants"] == "snapped":
            assert (row["images"], row["exact_images"], row["different_codes"] or "0") == ("2", "2", "0")
