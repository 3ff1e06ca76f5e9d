import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from subfour.export.runtime import read_file
from tests.cli.command import error, printed, subfour
from tests.data.builders import write_folder


@pytest.fixture(scope="session")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    printed("export", finished_run, "--out", file, "--snap")
    return file


def test_a_file_holds_what_its_run_says_of_it(finished_run: Path, exported: Path):
    record, _ = read_file(exported)
    reported = json.loads((finished_run / "result.json").read_text())
    assert record.accuracy is not None
    assert record.accuracy["top1"] == reported["rows"][-1]["averaged"]["top1"]
    assert record.classes == tuple(reported["classes"])
    assert (record.network, record.weight_bits, record.activation_bits) == ("subfour/tiny_mobilenet_v3", 4, 4)


def test_a_file_of_another_network_than_its_run_reported_has_no_accuracy(finished_run: Path, tmp_path: Path):
    """The snap phase trained on from the row before it, and no other size was evaluated."""
    file = tmp_path / "model.onnx"
    rows = json.loads((finished_run / "result.json").read_text())["rows"]
    printed("export", finished_run, "--out", file, "--no-snap")
    assert read_file(file)[0].accuracy is None
    printed("export", finished_run, "--out", file, "--resolution", 40)
    assert read_file(file)[0].accuracy is None
    run = shutil.copytree(finished_run, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"rows": rows[:-1]}))
    printed("export", run, "--out", file)
    assert read_file(file)[0].accuracy is None


def test_json_has_the_bytes_of_the_file(finished_run: Path, tmp_path: Path):
    file = tmp_path / "model.onnx"
    result = json.loads(printed("export", finished_run, "--out", file, "--no-snap", "--json"))
    sizes = result["bytes"]
    told = {"network": "subfour/tiny_mobilenet_v3", "weight_bits": 4, "activation_bits": 4, "image_size": 32, "snapped": False}
    assert {name: result[name] for name in told} == told
    assert sizes["file"] == file.stat().st_size == sizes["constants"] + sizes["graph"]
    assert sizes["constants"] == pytest.approx(sizes["cost_model"], rel=0.1)


@pytest.mark.parametrize("file_format", ["onnx", "qonnx", "qdq", "codes"])
def test_every_format_is_written(finished_run: Path, tmp_path: Path, file_format: str):
    file = tmp_path / "file"
    title, *_ = printed("export", finished_run, "--out", file, "--format", file_format, "--snap").splitlines()
    assert title == f"{file}: subfour/tiny_mobilenet_v3, A4W4, snapped, 32x32 pixels"
    if file_format == "codes":
        assert "operations" in np.load(file)


@pytest.mark.slow
def test_another_resolution_is_exact_too(finished_run: Path, tmp_path: Path):
    file = tmp_path / "model.onnx"
    printed("export", finished_run, "--out", file, "--snap", "--resolution", 40)
    assert read_file(file)[0].preprocessing.image_size == 40
    printed("verify", file, "--run", finished_run, "--images", 4)


def test_wrong_options_are_named(finished_run: Path, tmp_path: Path):
    assert error("export", finished_run, "--out", "a", "--snap", "--no-snap").startswith("snap: --snap and --no-snap exclude")
    assert "a network that is not snapped does not have" in error(
        "export", finished_run, "--out", "a", "--format", "codes", "--no-snap"
    )
    assert error("export", finished_run).startswith("Missing from subfour export: --out")
    missing = tmp_path / "no"
    assert error("export", finished_run, "--out", missing / "a") == f"out: there is no folder {missing}; make it, or name another"
    assert error("export", finished_run, "--out", tmp_path).startswith(f"out: {tmp_path} is a folder; name a file")
    assert error("export", finished_run, "--out", os.devnull).startswith(f"out: {os.devnull} is a device or a pipe")
    for option, why in (("--no-snap", "that is not snapped"), ("--snap", "that was trained snapped")):
        unread = error("export", finished_run, "--out", "a", option, "--data", "folder:mine")
        assert unread.startswith("data: folder:mine would not be read, because ")
        assert why in unread
    assert error("export", finished_run, "--out", "a", "--resolution", 0).startswith("resolution: 0 is not possible")


def test_no_file_is_written_over_what_is_read_or_belongs_to_a_run(finished_run: Path, tmp_path: Path):
    """A model file may be the only copy."""
    file = Path(shutil.copy(finished_run / "model.safetensors", tmp_path / "mine.safetensors"))
    before = file.read_bytes()
    (tmp_path / "link.onnx").symlink_to(file)
    for out in (file, tmp_path / ".." / tmp_path.name / file.name, tmp_path / "link.onnx"):
        assert error("export", file, "--out", out).startswith(f"out: {out} is what is read, and would be lost; name another file")
    assert file.read_bytes() == before
    checkpoint = next((finished_run / "checkpoints").iterdir())
    for out in (*(finished_run / name for name in ("config.json", "model.safetensors", "metrics.jsonl")), checkpoint):
        held = out.read_bytes()
        assert error("export", file, "--out", out).startswith(f"out: {out} belongs to a run, which would be damaged")
        assert out.read_bytes() == held


@pytest.mark.parametrize(
    ("file_format", "name", "right"),
    [("codes", "e.onnx", "e.npz"), ("onnx", "e.npz", "e.onnx"), ("qdq", "e.safetensors", "e.onnx")],
)
def test_a_name_that_contradicts_the_format_is_refused(finished_run: Path, here: Path, file_format: str, name: str, right: str):
    expected = f"out: {name} is no name for the format {file_format}; use {right}, or another --format"
    assert error("export", finished_run, "--out", name, "--format", file_format) == expected
    assert not Path(name).exists()


def test_verify_exits_0_where_a_snapped_file_is_exact(finished_run: Path, exported: Path):
    result = json.loads(printed("verify", exported, "--run", finished_run, "--images", 20, "--json"))
    assert (result["snapped"], result["exact"]) == (True, True)
    assert list(result["executors"]) == ["torch", "reference", "onnxruntime", "openvino"]
    for executor in result["executors"].values():
        assert (executor["images"], executor["exact_images"]) == (20, 20)


def test_verify_shows_the_largest_accumulators_beside_their_bounds(finished_run: Path, exported: Path):
    """What images gave lies below what weights allow; export says what is proven."""
    found = json.loads(printed("verify", exported, "--run", finished_run, "--images", 4, "--json"))["accumulators"]
    assert "classifier.3" in found
    assert all(0 < one["largest"] <= one["worst"] for one in found.values())
    proven = sum(one["worst"] <= one["exact"] for one in found.values())
    again = json.loads(printed("export", finished_run, "--out", exported.with_name("again"), "--snap", "--json"))
    assert (again["exact_float32"], again["layers_and_sums"]) == (proven, len(found))
    assert len(again["limited"]) == len(found) - proven
    assert again["unclear_channels"] == 0


def test_verify_with_a_run_of_another_network_is_refused(exported: Path):
    another = Path(__file__).parents[2] / "results" / "models" / "cifar10-mobilenet-v2-w4a4.safetensors"
    message = (
        f"run: it is of torchvision/mobilenet_v2, {exported} of subfour/tiny_mobilenet_v3; name the run it was exported from"
    )
    assert error("verify", exported, "--run", another, "--data", "digits") == message


def test_verify_exits_1_where_it_is_not(finished_run: Path, exported: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("subfour.export.verify.accumulators_of", lambda layer, values: values)  # no integers
    outcome = subfour("verify", exported, "--run", finished_run, "--images", 2)
    assert outcome.code == 1
    assert "0/2" in outcome.out


def test_verify_names_what_does_not_fit(finished_run: Path, exported: Path, tmp_path: Path):
    other = Path(__file__).parents[2] / "results" / "models" / "digits-w2a2.safetensors"
    assert error("verify", exported, "--run", other).startswith("run: it gives another features.0.0.weight than the file has")
    assert error("verify", exported, "--run", finished_run, "--images", 0) == "images: 0 is not possible; use 1 or more"
    threads = "threads: -1 is not possible; use 1 to 1024, or 0 to leave it to the runtime"
    assert error("verify", exported, "--run", finished_run, "--threads", -1) == threads
    assert error("verify", exported, "--run", finished_run, "--runtimes").startswith("runtimes: none is named; name one or more")
    assert error("predict", exported, exported, "--threads", -1) == threads
    write_folder(tmp_path / "more", classes=[f"class{number:02}" for number in range(11)], images=1)
    source = f"folder:{tmp_path / 'more'}"
    assert f"{source} has 11 classes, the model knows 10" in error("verify", exported, "--run", finished_run, "--data", source)
    truncated = tmp_path / "model.onnx"
    truncated.write_bytes(exported.read_bytes()[:1000])
    for command in ("verify", "benchmark", "predict"):
        options = {"verify": ["--run", finished_run], "benchmark": [], "predict": [exported]}[command]
        assert error(command, truncated, *options).startswith(f"model: {truncated} is damaged")


def test_benchmark_prints_a_row_for_each_executor(exported: Path):
    title, headings, *rows = printed("benchmark", exported, "--repeats", 1, "--batches", 1).splitlines()
    assert title.startswith(f"{exported}: medians of 1 interleaved runs")
    assert headings.split() == ["executor", "batch", "ms", "over", "float", "images/s"]
    assert len(rows) == 6
    assert error("benchmark", exported, "--threads", 0) == "threads: 0 is not possible; use 1 or more"
    assert error("benchmark", exported, "--batches").startswith("batches: none is named; name one or more, such as 1 16")
    assert error("benchmark", exported, "--runtimes").startswith("runtimes: none is named; name one or more, such as onnxruntime")
