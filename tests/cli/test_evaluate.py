import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from subfour.data.loader import EvaluationLoader
from tests.cli.command import ONE_STEP, error, printed, subfour
from tests.data.builders import encoded, picture, typed_features, write_folder, write_parquet


def test_json_has_accuracy_loss_and_images(finished_run: Path):
    accuracy = json.loads(printed("evaluate", finished_run, "--json"))
    assert list(accuracy) == ["top1", "top5", "loss", "images", "weight_bits", "activation_bits", "snapped", "data"]
    assert accuracy["images"] == 355


def test_it_gives_what_the_run_reported(finished_run: Path):
    reported = json.loads((finished_run / "result.json").read_text())["rows"][-1]["averaged"]
    found = json.loads(printed("evaluate", finished_run, "--json"))
    assert found.pop("data") == "digits"
    assert found == pytest.approx(reported | {"weight_bits": 4, "activation_bits": 4, "snapped": True})


def test_a_model_file_alone_is_enough(finished_run: Path, tmp_path: Path):
    copy = shutil.copy(finished_run / "model.safetensors", tmp_path)
    assert printed("evaluate", copy, "--json") == printed("evaluate", finished_run, "--json")


def test_the_table_says_what_was_evaluated_on_what(finished_run: Path):
    title, headings, row = printed("evaluate", finished_run).splitlines()
    assert title == f"{finished_run}: A4W4 snapped on digits"
    assert headings.split() == ["top-1", "%", "top-5", "%", "loss", "images"]
    assert row.split()[-1] == "355"


def test_it_says_whether_a_network_is_snapped(finished_run: Path, tmp_path: Path):
    assert json.loads(printed("evaluate", finished_run, "--json"))["snapped"] is True
    unsnapped = tmp_path / "unsnapped"
    subfour("train", "digits", *ONE_STEP, "--weight-bits", 4, "--activation-bits", 4, "--no-snap", "--out", unsnapped)
    assert json.loads(printed("evaluate", unsnapped, "--json"))["snapped"] is False
    assert printed("evaluate", unsnapped).splitlines()[0] == f"{unsnapped}: A4W4 on digits"


def test_one_parquet_file_needs_no_split(finished_run: Path, tmp_path: Path):
    file = tmp_path / "test.parquet"
    names = [str(digit) for digit in range(10)]
    write_parquet(file, labels=range(10), features=typed_features(names=names))
    assert json.loads(printed("evaluate", finished_run, "--data", f"parquet:{file}", "--json"))["images"] == 10


def test_a_split_can_be_named(finished_run: Path):
    assert json.loads(printed("evaluate", finished_run, "--split", "train", "--json"))["images"] == 1442
    assert error("evaluate", finished_run, "--split", "test").startswith("split: the data has no 'test', only train, validation")


def test_other_class_names_are_a_warning(finished_run: Path, photographs: Path):
    outcome = subfour("evaluate", finished_run, "--data", f"folder:{photographs}", "--json")
    assert json.loads(outcome.out)["images"] == 10
    assert outcome.err.startswith("subfour: warning: data: class names differ, first '0' in the model and 'cat' in the data")
    assert outcome.err.count("\n") == 1


def test_more_classes_than_the_head_are_refused(finished_run: Path, tmp_path: Path):
    write_folder(tmp_path, classes=[f"class{number:02}" for number in range(11)], images=1)
    assert f"folder:{tmp_path} has 11 classes, the model knows 10" in error(
        "evaluate", finished_run, "--data", f"folder:{tmp_path}"
    )


def test_bad_data_is_named(finished_run: Path, tmp_path: Path):
    def message(source: str) -> str:
        return error("evaluate", finished_run, "--data", source)

    assert message("digit").startswith("data: 'digit' is not a source (did you mean 'digits'?)")
    assert message("folder:nowhere") == "data: there is no folder nowhere; give the folder that holds train/ and val/"
    assert message("parquet:nowhere").startswith("data: there is no nowhere; give a .parquet file or a folder")
    broken = tmp_path / "broken.parquet"
    write_parquet(broken, labels=[0, 1], images=[encoded(picture()), b"no image"])
    assert f"cannot read row 1 of broken in parquet:{broken}" in message(f"parquet:{broken}")
    broken.write_bytes(b"PAR1")
    assert message(f"parquet:{broken}").startswith(f"data: {broken} is not a parquet file")


def test_a_bad_model_is_named(finished_run: Path, interrupted: Path, tmp_path: Path):
    assert error("evaluate", "nowhere") == "model: there is no file nowhere"
    assert error("evaluate", tmp_path).startswith(f"{tmp_path}: not a run directory")
    assert error("evaluate", interrupted) == (
        f"model: the run {interrupted} is not finished; finish it with: subfour train --resume {interrupted}"
    )
    checkpoint = next((finished_run / "checkpoints").iterdir())
    for weights in (finished_run / "weights.safetensors", finished_run / "teacher.safetensors", checkpoint):
        message = error("evaluate", weights)
        assert message.startswith(
            f"model: {weights} holds plain weights, no model; give the run directory or its model.safetensors"
        )
        assert message.endswith(f"subfour train RECIPE --weights {weights}")
    exported = tmp_path / "mine.onnx"
    exported.write_bytes(b"\x08\x0a\x12\x07subfour")
    for command in ("evaluate", "inspect", "cost"):
        assert error(command, exported).startswith(f"model: {exported} is an exported file; give the run or the model file that")
    assert "is damaged or not a safetensors file" in error("evaluate", finished_run / "result.json")
    truncated = tmp_path / "model.safetensors"
    truncated.write_bytes((finished_run / "model.safetensors").read_bytes()[:5000])
    assert f"model: {truncated} is damaged" in error("evaluate", truncated)


def test_a_device_that_is_not_there_is_refused(finished_run: Path):
    for device in ("abacus", "gpu"):
        message = f"device: {device!r} is not possible; use auto, cpu or cuda"
        assert error("evaluate", finished_run, "--device", device) == message
    assert error("evaluate", finished_run, "--device", "cuda:x").startswith("device: 'cuda:x' is not available here")


def test_a_batch_size_must_be_positive(finished_run: Path):
    assert error("evaluate", finished_run, "--batch-size", 0) == "batch_size: 0 is not possible; use 1 to 2147483647"
    assert error("evaluate", finished_run, "--batch-size", 10**20).startswith("batch_size: 1")
    assert error("evaluate", finished_run, "--data", "").startswith("data: '' is not a source")
    assert error("evaluate", finished_run, "--batch-size", "x").endswith("write --batch-size INT")


def test_the_model_is_required():
    assert error("evaluate").startswith("Missing from subfour evaluate: MODEL")


def test_images_are_decoded_by_as_many_processes_as_in_training_or_as_asked(finished_run: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Loader(EvaluationLoader):
        def __init__(self, *arguments: Any, workers: int | None, **options: Any) -> None:
            asked.append(workers)
            super().__init__(*arguments, workers=workers, **options)

    monkeypatch.setattr("subfour.profit.model_file.EvaluationLoader", Loader)
    printed("evaluate", finished_run)
    printed("evaluate", finished_run, "--workers", 1)
    assert asked == [0, 1]


def test_memory_that_does_not_suffice_is_one_line(finished_run: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Resource temporarily unavailable (11)")

    monkeypatch.setattr("subfour.cli.evaluate.evaluate_model", fail)
    assert error("evaluate", finished_run).startswith("memory: the processes that decode images need more of it; use ")
