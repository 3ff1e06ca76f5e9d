"""Published numbers are what `results/` holds, and its models reach them."""

from pathlib import Path

import pytest
from record import ACCURACY, table
from table import read_rows

from subfour.profit.model_file import evaluate_model, read_model

ROOT = Path(__file__).parent.parent
MODELS = sorted((ROOT / "results" / "models").glob("*.safetensors"))
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10"
LARGEST_BYTES = 5_000_000


def test_the_readme_s_table_is_made_from_the_results():
    """Run `python benchmarks/record.py` when this fails."""
    assert f"<!-- results:begin -->\n{table()}\n<!-- results:end -->" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_a_committed_model_is_small(file: Path):
    assert file.stat().st_size < LARGEST_BYTES


@pytest.mark.skipif(not CIFAR10.exists(), reason="needs the CIFAR-10 files")
@pytest.mark.parametrize("file", [file for file in MODELS if file.stem.startswith("cifar10")], ids=lambda file: file.stem)
def test_a_committed_model_reaches_its_row(file: Path):
    """Within 0.5 point: another machine may sum in another order."""
    trained = read_model(file)
    widths = f"A{trained.activation_bits}W{trained.weight_bits}" + (" snapped" if trained.snapping else "")
    row = next(row for row in read_rows(ACCURACY) if row["name"] == file.stem and row["widths"] == widths)
    assert evaluate_model(trained, f"parquet:{CIFAR10}").top1 == pytest.approx(float(row["top1"]), abs=0.5)
