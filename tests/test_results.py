"""Published numbers are what `results/` holds, and its models reach them."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import pytest
from documents import ACCURACY, CONTROL, TABLES, float_top1, marked
from table import read_rows

from subfour.cli.study import read_study, same_run
from subfour.profit.config import RunConfig
from subfour.profit.model_file import evaluate_model, read_model

ROOT = Path(__file__).parent.parent
MODELS = sorted((ROOT / "results" / "models").glob("*.safetensors"))
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10"
LARGEST_BYTES = 5_000_000


@pytest.mark.parametrize(("name", "document", "table"), [(name, *parts) for name, parts in TABLES.items()])
def test_tables_of_documents_are_made_from_the_results(name: str, document: Path, table: Callable[[], str]):
    """Run `python benchmarks/record.py` when this fails."""
    assert marked(name, table()) in document.read_text()


def test_points_are_lost_against_the_better_of_start_and_control():
    """Training as long in float may be better than the start, or worse; through `--from`, too."""
    first = {"name": "run", "widths": "A32W32", "top1": "9.50", "command": "subfour train digits"}
    quantized = first | {"widths": "A4W4", "top1": "9.00"}
    further = first | {"name": "further", "widths": "A3W3", "command": "subfour train digits --from run"}
    runs = {"run": [first, quantized], "further": [further]}
    assert [float_top1(rows, runs) for rows in runs.values()] == ["9.50", "9.50"]
    for top1, better in (("10.20", "10.20"), ("9.10", "9.50")):
        control = first | {"name": f"run{CONTROL}", "top1": top1}
        assert [float_top1(rows, runs | {control["name"]: [control]}) for rows in runs.values()] == [better, better]


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_a_committed_model_is_small(file: Path):
    assert file.stat().st_size < LARGEST_BYTES


def model_case(file: Path) -> object:
    """Return a committed model and its images; of CIFAR-10 one is always checked, where these are there, and all of digits."""
    if file.stem.startswith("digits"):
        return pytest.param(file, "digits", id=file.stem)
    marks = [pytest.mark.skipif(not CIFAR10.exists(), reason="needs the CIFAR-10 files")]
    if file.stem != "cifar10-mobilenet-v2-w4a4":
        marks.append(pytest.mark.slow)
    return pytest.param(file, f"parquet:{CIFAR10}", marks=marks, id=file.stem)


@pytest.mark.parametrize(("file", "data"), map(model_case, MODELS))
def test_a_committed_model_reaches_its_row(file: Path, data: str):
    """Within 0.5 point: another machine may sum in another order."""
    trained = read_model(file)
    widths = f"A{trained.activation_bits}W{trained.weight_bits}" + (" snapped" if trained.snapping else "")
    row = next(row for row in read_rows(ACCURACY) if row["name"] == file.stem and row["widths"] == widths)
    assert evaluate_model(trained, data).top1 == pytest.approx(float(row["top1"]), abs=0.5)


def test_the_study_s_runs_are_those_that_its_file_asks_for():
    """Whatever became of the recipe since: `subfour compare` trains none of them again."""
    study = read_study(ROOT / "benchmarks" / "study_cifar10.toml", Path("runs/study"))
    with tarfile.open(ROOT / "results" / "study-cifar10" / "runs.tar.xz") as archive:
        there = {
            Path("runs/study", member.name).parent: json.load(cast(IO[bytes], archive.extractfile(member)))
            for member in archive
            if Path(member.name).name == "config.json"
        }
    assert {run.path for run in study.runs} == there.keys()
    assert [run.path for run in study.runs if not same_run(run.config, RunConfig.from_json(there[run.path]))] == []
