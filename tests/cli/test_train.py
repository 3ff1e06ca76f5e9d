import errno
import json
import re
import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from subfour.cli.recipe_arguments import warn_of_what_is_not_read
from subfour.models.tiny import tiny_mobilenet_v3
from subfour.quantizers import QuantizerName
from subfour.recipes import load_recipe
from subfour.tensor_file import unpack_tensors
from subfour.train import checkpoint
from tests.cli.command import ONE_STEP, SHORT, TEN_PHASES, error, printed, subfour, train, widths
from tests.data.builders import write_folder, write_parquet


def test_without_a_terminal_it_prints_a_line_per_epoch_and_the_result(here: Path, photographs: Path):
    outcome = subfour("train", "digits", *SHORT, "--data", f"folder:{photographs}", "--out", "my run")
    assert (outcome.code, outcome.err) == (0, "")
    epochs, table, *_ = outcome.out.split("\n\n")
    headings, *lines = epochs.splitlines()
    assert headings.split()[:5] == ["phase", "kind", "widths", "frozen", "epoch"]
    assert [line.split()[0] for line in lines] == [f"{phase}/11" for phase in range(1, 12)]
    title, headings, *rows, padding = table.splitlines()
    assert title == "digits: subfour/tiny_mobilenet_v3, duq, method profit, seed 0"
    assert headings.split("  ")[0] == "widths"
    assert [row.split("  ")[0] for row in rows] == ["float", "A4W32", "A4W4", "A4W4 snapped"]
    assert padding.startswith("top-1 and negative padding: ")
    assert padding.count("%") == 3


def test_everything_shown_is_in_metrics(here: Path, photographs: Path):
    """One record per line shown, with the numbers shown."""
    lines = (
        printed("train", "digits", *SHORT, "--data", f"folder:{photographs}", "--out", "run").split("\n\n")[0].splitlines()[1:]
    )
    records = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    for line, record in zip(lines, records, strict=True):
        phase, kind, shown_widths, frozen, epoch, loss, validation, top1, average, _ = line.split()
        assert phase == f"{record['phase'] + 1}/11"
        assert kind == record["kind"]
        assert shown_widths == f"A{record['activation_bits']}W{record['weight_bits']}"
        assert int(frozen) == record["frozen_layers"]
        assert epoch == f"{record['epoch'] + 1}/{record['epochs']}"
        assert float(loss) == pytest.approx(record["train_loss"], rel=1e-3)
        assert float(validation) == pytest.approx(record["raw"]["loss"], rel=1e-3)
        assert float(top1) == pytest.approx(record["raw"]["top1"], abs=0.01)
        assert float(average) == pytest.approx(record["averaged"]["top1"], abs=0.01)


def test_the_commands_it_prints_at_the_end_work_as_they_are_printed(here: Path):
    """Looks at the run, the proof of its exported file, and training on one's own photographs, shortened here."""
    lines = printed("train", "digits", *SHORT, "--out", "my run").splitlines()
    *looks, photographs = [shlex.split(line)[1:] for line in lines if line.startswith("  subfour ")]
    assert [look[0] for look in looks] == ["report", "evaluate", "inspect", "sensitivity", "export", "verify"]
    for look in looks:
        assert "my run" in printed(*look)
    write_folder(here / "PHOTOS", images=3)
    printed(*photographs, *SHORT)
    assert json.loads((here / "runs/digits/result.json").read_text())["classes"] == ["cat", "dog"]


def test_what_does_not_apply_is_not_advised(here: Path, photographs: Path):
    """A run on photographs needs no advice to try that, and a network that was not snapped no proof."""
    text = printed("train", "digits", *SHORT, "--data", f"folder:{photographs}", "--no-snap")
    assert "PHOTOS" not in text
    assert "verify" not in text
    assert "sensitivity" in text
    floating = ["--weight-bits", 32, "--activation-bits", 32]
    text = printed("train", "digits", *ONE_STEP, "--data", f"folder:{photographs}", *floating)
    assert "sensitivity" not in text


def test_json_is_the_result_and_progress_goes_to_standard_error(here: Path, photographs: Path):
    outcome = subfour("train", "digits", *SHORT, "--data", f"folder:{photographs}", "--out", "run", "--json")
    assert json.loads(outcome.out) == json.loads(Path("run/result.json").read_text())
    assert outcome.err.splitlines()[0].split()[0] == "phase"


@pytest.mark.slow
def test_runs_without_a_name_get_one_each(here: Path, photographs: Path):
    for _ in range(2):
        train("--data", f"folder:{photographs}")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["digits", "digits-2"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--weight-bits 32 --activation-bits 32 --keep-phases", ["float"]),
        pytest.param(
            "--weight-bits 8 5 4 3 --activation-bits 8 3",
            ["float", "A8W32", "A3W32", "A3W8", "A3W5", "A3W4", "A3W3", "A3W3 snapped"],
            marks=pytest.mark.slow,
        ),
        ("--weight-bits 3 --activation-bits 3 --profit.fractions 1/4 1/2 3/4", ["float", "A3W32", "A3W3", "A3W3 snapped"]),
        pytest.param("--weight-bits 2 --activation-bits 2", ["float", "A2W32", "A2W2", "A2W2 snapped"], marks=pytest.mark.slow),
        ("--method none", ["float", "A4W32", "A4W4", "A4W4 snapped"]),
        ("--quantizer pact-sawb --schedule.lr 0.001", ["float", "A4W32", "A4W4", "A4W4 snapped"]),
        ("--padding zero --no-snap", ["float", "A4W32", "A4W4"]),
        pytest.param("--teacher none", ["float", "A4W32", "A4W4", "A4W4 snapped"], marks=pytest.mark.slow),
        pytest.param("--schedule.batch-size 5000", ["float", "A4W32", "A4W4", "A4W4 snapped"], marks=pytest.mark.slow),
        pytest.param("--model timm/mobilenetv3_small_050", ["float", "A4W32", "A4W4", "A4W4 snapped"], marks=pytest.mark.slow),
    ],
)
def test_variants_of_a_recipe_train_to_the_end(options: str, expected: list[str], here: Path, photographs: Path):
    assert widths(train("--data", f"folder:{photographs}", *shlex.split(options))) == expected


def test_a_network_is_quantized_without_training_and_without_data(here: Path, photographs: Path):
    """DFQ from a float run: two rows, a model file, nothing trained; resuming it says that it is finished."""
    network = ["--data", f"folder:{photographs}", "--model", "subfour/mobilenet_v1", "--loading.image-size", 64]
    printed("train", "digits", *ONE_STEP, *network, "--weight-bits", 32, "--activation-bits", 32, "--out", "float")
    words = ["train", "digits", *network, "--from", "float", "--start", "dfq", "--method", "data-free", "--quantizer", "affine"]
    outcome = subfour(*words, *TEN_PHASES, "--no-snap", "--schedule.lr", 0.3, "--out", "dfq", "--json")
    assert "schedule.lr: 0.3 is not read with --method data-free, which trains nothing" in outcome.err
    result = json.loads(outcome.out)
    assert (widths(result), result["epochs"], result["method"]) == (["float", "A4W4"], 0, "data-free")
    assert not Path("dfq/metrics.jsonl").exists()
    averaged = result["rows"][-1]["averaged"]
    evaluated = json.loads(printed("evaluate", "dfq", "--json"))
    assert averaged == {name: evaluated[name] for name in averaged}
    assert "nothing is left to train" in printed("train", "--resume", "dfq")


def test_what_cannot_be_quantized_without_data_leaves_no_run(here: Path):
    """Nothing is known of what feeds the head's second layer."""
    words = ["--method", "data-free", "--teacher", "none", *TEN_PHASES, "--no-snap"]
    assert "nothing is known of its input without data" in error("train", "digits", *words, "--out", "run")
    assert not Path("run").exists()


def test_a_run_continues_another(finished_run: Path, here: Path):
    result = json.loads(
        printed("train", "digits", *ONE_STEP, "--from", finished_run, "--weight-bits", 3, "--activation-bits", 3, "--json")
    )
    assert widths(result) == ["A3W4", "A3W3", "A3W3 snapped"]


def test_a_run_continues_on_the_data_of_the_earlier_one(here: Path, photographs: Path):
    """Where nobody names others; and options of phases that it has not are named."""
    train("--data", f"folder:{photographs}", "--schedule.batch-size", 4, "--loading.image-size", 40, "--out", "first")
    words = ["--weight-bits", 3, "--activation-bits", 3, "--schedule.float-epochs", 7, "--schedule.batch-size", 4, "--no-snap"]
    outcome = subfour("train", "digits", *ONE_STEP, "--from", "first", *words, "--out", "second")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("second/config.json").read_text())["data"] == f"folder:{photographs}"
    assert f"data: folder:{photographs}, as in first, and not the recipe's digits" in outcome.err
    assert "loading.image_size: 40, as in first, and not the recipe's 32" in outcome.err
    assert "schedule.float_epochs: 7 is not read with --from" in outcome.err
    assert json.loads(Path("second/data.json").read_text())["classes"] == ["cat", "dog"]


@pytest.mark.parametrize(("quantizer", "said"), [("lsq", True), ("pact-sawb", False)])
def test_a_start_that_a_quantizer_has_of_its_own_is_said(quantizer: QuantizerName, said: bool, caplog: pytest.LogCaptureFixture):
    recipe = load_recipe("digits")
    config = replace(recipe, quantizer=quantizer, activation_start="least-squares")
    warn_of_what_is_not_read(config, config, recipe, image_size=32)
    assert ("activation_start: least-squares is not read with --quantizer lsq" in caplog.text) == said


def test_sizes_of_a_float_phase_that_there_is_not_are_named(caplog: pytest.LogCaptureFixture):
    recipe = load_recipe("digits")
    config = replace(recipe, schedule=replace(recipe.schedule, float_epochs=0, float_sizes=(Fraction(1, 2), Fraction(1))))
    warn_of_what_is_not_read(config, config, recipe, image_size=32)
    assert "schedule.float_sizes: 1/2 1 is not read without a float phase" in caplog.text


def test_weights_and_teacher_come_from_files(here: Path, photographs: Path):
    save_file(tiny_mobilenet_v3(1000).state_dict(), "student.safetensors")
    torch.save({"state_dict": resnet18(num_classes=2).state_dict()}, "teacher.pth")
    teacher = ["--teacher", "torchvision/resnet18", "--teacher-weights", "teacher.pth"]
    words = ["--data", f"folder:{photographs}", "--weights", "student.safetensors", *teacher, "--out", "run"]
    outcome = subfour("train", "digits", *SHORT, *words)
    assert outcome.code == 0
    reheaded, unknown = outcome.err.splitlines()
    assert reheaded == "subfour: re-headed: classifier.3 has 1000 classes in the weights and starts anew with 2"
    assert "weights: student.safetensors does not say how its images were normalised" in unknown


def test_a_float_run_s_weights_start_and_teach_others(here: Path, photographs: Path):
    """They have the names of the stock network, as if nobody had converted it."""
    words = ["--data", f"folder:{photographs}", "--weight-bits", 32, "--activation-bits", 32, "--out", "float"]
    assert widths(train(*words)) == ["float"]
    weights = "float/weights.safetensors"
    teacher = ["--teacher", "subfour/tiny_mobilenet_v3", "--teacher-weights", weights]
    assert widths(train("--data", f"folder:{photographs}", *TEN_PHASES, "--weights", weights, *teacher))[-1] == "A4W4 snapped"
    assert subfour("report", "float").code == 0


def test_parquet_data_train_too(here: Path):
    for split, count in (("train", 8), ("validation", 4)):
        write_parquet(here / "data" / f"{split}.parquet", labels=[number % 2 for number in range(count)])
    assert train("--data", "parquet:data")["classes"] == ["0", "1"]


def test_the_imagenet_recipe_trains_a_step_of_each_phase_at_224_pixels(here: Path):
    """The path of ImageNet's users, on a handful of images, at one width."""
    write_folder(here / "imagenet")
    words = ["--data", "folder:imagenet", "--weights", "none", "--teacher", "self", "--out", "run"]
    assert widths(train(*words, recipe="imagenet-mobilenet-v2")) == ["float", "A4W32", "A4W4"]
    kinds = [json.loads(line)["kind"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert kinds == [phase["kind"] for phase in json.loads(Path("run/plan.json").read_text())]
    assert json.loads(Path("run/data.json").read_text())["preprocessing"]["image_size"] == 224


def test_tensorboard_gets_one_step_per_epoch_of_the_run(here: Path, photographs: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("--data", f"folder:{photographs}", "--tensorboard", "--out", "run")
    events = EventAccumulator("run/tensorboard").Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 12))
    assert {"validation/raw/top1", "validation/averaged/loss", "frozen_layers", "lr"} <= set(events.Tags()["scalars"])


def test_tensorboard_that_is_not_installed_is_noticed_at_once(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("subfour.cli.train.find_spec", lambda name: None)
    assert error("train", "digits", "--tensorboard").startswith("tensorboard: it is not installed; install it with: pip install")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_epoch(here: Path):
    """Phase, epoch and remedy are named; every phase has one epoch here, so the newest checkpoint is that of the phase before."""
    rates = ["--schedule.float-lr", 0.01, "--schedule.lr", 1e30, "--schedule.range-lr-scale", 0]
    outcome = subfour("train", "digits", *SHORT, "--schedule.max-steps", 3, *rates, "--out", "run")
    assert outcome.code == 2
    stopped = re.fullmatch(
        r"subfour: phase (\d) of 11 \(\w+ A4W32\): .* epoch 1.*; try a lower schedule.lr; the epochs before it are kept, "
        r"and the float network, for --weights (run/teacher.safetensors), and the networks at the widths passed, in run/models\n",
        outcome.err,
    )
    assert stopped, outcome.err
    newest = sorted(Path("run/checkpoints").iterdir())[-1]
    assert newest.name.split("-")[1] == f"{int(stopped[1]) - 1:06d}"
    assert not any("quantizer" in name for name in unpack_tensors(Path(stopped[2]))[0])


def test_a_full_disk_is_one_line_and_keeps_the_older_checkpoints(here: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    write = checkpoint.write_atomically

    def fill(path: Path, data: bytes) -> None:
        if "checkpoint-000003" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(checkpoint, "write_atomically", fill)
    outcome = subfour("train", "digits", *SHORT, "--data", f"folder:{photographs}", "--out", "run")
    assert outcome.code == 2
    assert outcome.err == (
        "subfour: run/checkpoints: checkpoint 3 could not be written (No space left on device); the older ones are kept\n"
    )
    assert [file.name.split("-")[1] for file in sorted(Path("run/checkpoints").iterdir())] == ["000001", "000002"]


def test_a_run_continues_another_as_it_was_without_a_recipe(here: Path, photographs: Path):
    """Its network, data, schedule and augmentation; only what is asked for is another."""
    words = ["--data", f"folder:{photographs}", "--schedule.batch-size", 4, "--loading.augment", "crop-flip"]
    train(*words, *TEN_PHASES, "--model", "torchvision/mobilenet_v3_small", "--architecture.width", 0.5, "--out", "first")
    narrower = ["--weight-bits", 3, "--activation-bits", 3]
    assert widths(json.loads(printed("train", "--from", "first", *narrower, "--out", "second", "--json")))[-1] == "A3W3 snapped"
    first, second = (json.loads(Path(name, "config.json").read_text()) for name in ("first", "second"))
    assert second["loading"].pop("image_size") is None  # that of the first run
    del first["loading"]["image_size"]
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"weight_bits", "activation_bits", "from_run", "starting_weight_bits"}
    plan = json.loads(printed("plan", "--from=first", *narrower, "--json"))
    assert [phase["kind"] for phase in plan] == [
        json.loads(line)["kind"] for line in Path("second/metrics.jsonl").read_text().splitlines()
    ]
    assert error("train", "--from", "first", "--weight-bits", 8).startswith("weight_bits: 8 is wider than the 4 bits that first")
    assert error("train", "--from", "nowhere", *narrower).startswith("from: nowhere")
    mean = ["--loading.mean", 0.5, 0.5, 0.5]
    assert "loading.mean: (0.5, 0.5, 0.5) is not read with --from first" in error("train", "--from", "first", *narrower, *mean)
