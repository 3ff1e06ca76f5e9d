import errno
import json
import re
import shlex
import shutil
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18
from torchvision.models._api import WeightsEnum

from subfour.cli.summary import label
from subfour.models.tiny import tiny_mobilenet_v3
from subfour.train import checkpoint
from tests.cli.command import ONE_STEP, TEN_PHASES, error, printed, subfour
from tests.data.builders import write_folder, write_parquet

SHORT = [*ONE_STEP, *TEN_PHASES]


def train(*words: object, recipe: str = "digits") -> dict[str, object]:
    """Train a step of each phase and return the result."""
    result: dict[str, object] = json.loads(printed("train", recipe, *SHORT, *words, "--json"))
    return result


def widths(result: dict[str, object]) -> list[str]:
    return [label(row) for row in result["rows"]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_json_is_the_result_and_progress_goes_to_standard_error(here: Path, photographs: Path):
    outcome = subfour("train", "digits", *SHORT, "--data", f"folder:{photographs}", "--out", "run", "--json")
    assert json.loads(outcome.out) == json.loads(Path("run/result.json").read_text())
    assert outcome.err.splitlines()[0].split()[0] == "phase"


def test_runs_without_a_name_get_one_each(here: Path, photographs: Path):
    for _ in range(2):
        train("--data", f"folder:{photographs}")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["digits", "digits-2"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--weight-bits 32 --activation-bits 32 --keep-phases", ["float"]),
        (
            "--weight-bits 8 5 4 3 --activation-bits 8 3",
            ["float", "A8W32", "A3W32", "A3W8", "A3W5", "A3W4", "A3W3", "A3W3 snapped"],
        ),
        ("--weight-bits 3 --activation-bits 3 --profit.fractions 1/4 1/2 3/4", ["float", "A3W32", "A3W3", "A3W3 snapped"]),
        ("--weight-bits 2 --activation-bits 2", ["float", "A2W32", "A2W2", "A2W2 snapped"]),
        ("--method none", ["float", "A4W32", "A4W4", "A4W4 snapped"]),
        ("--quantizer pact-sawb --schedule.lr 0.001", ["float", "A4W32", "A4W4", "A4W4 snapped"]),
        ("--padding zero --no-snap", ["float", "A4W32", "A4W4"]),
        ("--teacher none", ["float", "A4W32", "A4W4", "A4W4 snapped"]),
        ("--schedule.batch-size 5000", ["float", "A4W32", "A4W4", "A4W4 snapped"]),
        ("--model timm/mobilenetv3_small_050", ["float", "A4W32", "A4W4", "A4W4 snapped"]),
    ],
)
def test_variants_of_a_recipe_train_to_the_end(options: str, expected: list[str], here: Path, photographs: Path):
    assert widths(train("--data", f"folder:{photographs}", *shlex.split(options))) == expected


def test_a_network_is_quantized_without_training_and_without_data(here: Path, photographs: Path):
    """DFQ from a float run: two rows, a model file, nothing trained; resuming it says that it is finished."""
    network = ["--data", f"folder:{photographs}", "--model", "subfour/mobilenet_v1", "--loading.image-size", 64]
    printed("train", "digits", *ONE_STEP, *network, "--weight-bits", 32, "--activation-bits", 32, "--out", "float")
    words = ["train", "digits", *network, "--from", "float", "--start", "dfq", "--method", "data-free", "--quantizer", "affine"]
    result = json.loads(printed(*words, *TEN_PHASES, "--out", "dfq", "--json"))
    assert (widths(result), result["epochs"], result["method"]) == (["float", "A4W4"], 0, "data-free")
    assert not Path("dfq/metrics.jsonl").exists()
    evaluated = json.loads(printed("evaluate", "dfq", "--json"))
    assert evaluated == result["rows"][-1]["averaged"] | {"snapped": False}
    assert "nothing is left to train" in printed("train", "--resume", "dfq")


def test_a_run_continues_another(finished_run: Path, here: Path):
    result = json.loads(
        printed("train", "digits", *ONE_STEP, "--from", finished_run, "--weight-bits", 3, "--activation-bits", 3, "--json")
    )
    assert widths(result) == ["A3W4", "A3W3", "A3W3 snapped"]


def test_weights_and_teacher_come_from_files(here: Path, photographs: Path):
    save_file(tiny_mobilenet_v3(1000).state_dict(), "student.safetensors")
    torch.save({"state_dict": resnet18(num_classes=2).state_dict()}, "teacher.pth")
    teacher = ["--teacher", "torchvision/resnet18", "--teacher-weights", "teacher.pth"]
    words = ["--data", f"folder:{photographs}", "--weights", "student.safetensors", *teacher, "--out", "run"]
    outcome = subfour("train", "digits", *SHORT, *words)
    assert outcome.code == 0
    assert outcome.err == "subfour: re-headed: classifier.3 has 1000 classes in the weights and starts anew with 2\n"


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


# What is refused. A start that fails leaves nothing behind: the mended command can be given the same --out.


def refused(*words: object) -> str:
    message = error("train", "digits", *SHORT, *words, "--out", "run")
    assert not Path("run").exists()
    return message


def test_bad_data_are_refused(here: Path):
    write_folder(here / "photos")
    source = f"folder:{here / 'photos'}"
    assert refused("--data", "folder:nowhere").startswith("data: there is no folder nowhere")
    assert refused("--data", f"{source}/train").startswith(f"data: {here / 'photos' / 'train'} holds neither train/ nor val/")
    image = here / "photos" / "train" / "cat" / "0.png"
    image.write_bytes(image.read_bytes()[:100])
    assert refused("--data", source).startswith(f"image: cannot read {image}")
    image.unlink()
    (here / "photos" / "train" / "cat" / "1.png").unlink()
    assert refused("--data", source).startswith(f"data: class folder {image.parent} is empty")
    write_folder(here / "unsplit", splits=["train"])
    assert refused("--data", "folder:unsplit").startswith("split: the data has train, but none of validation, val, test")


def test_bad_weights_are_refused(here: Path, finished_run: Path, photographs: Path):
    resnet = ["--data", f"folder:{photographs}", "--model", "torchvision/resnet18", "--weights"]
    assert refused(*resnet, "nowhere.pth").startswith("weights: 'nowhere.pth' is no file")
    assert refused(*resnet, finished_run / "weights.safetensors").startswith("weights: they are of another network: missing")
    Path("truncated.safetensors").write_bytes((finished_run / "weights.safetensors").read_bytes()[:5000])
    assert refused(*resnet, "truncated.safetensors").startswith("weights: 'truncated.safetensors' cannot be read")
    torch.save(resnet18(num_classes=7).state_dict(), "seven.pth")
    teacher = ["--teacher", "torchvision/resnet18", "--teacher-weights", "seven.pth"]
    assert refused("--data", f"folder:{photographs}", *teacher).startswith("teacher: weights: they are of another network")
    assert refused("--weights", "pretrained").startswith("weights: there are no pretrained weights for subfour/tiny_mobilenet_v3")


class Code:
    """Something that would run when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Create a file."""
        return (open, ("ran", "w"))  # type: ignore[return-value]


def test_weights_that_hold_code_are_refused_and_it_does_not_run(here: Path, photographs: Path):
    torch.save({"weight": Code()}, "code.pth")
    message = refused("--data", f"folder:{photographs}", "--model", "torchvision/resnet18", "--weights", "code.pth")
    assert (
        message == "weights: 'code.pth' cannot be read: it is damaged, or holds code, which is not run; save a plain state dict"
    )
    assert not Path("ran").exists()


def test_a_failed_download_is_one_line(here: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self: WeightsEnum, **options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    words = ["--data", f"folder:{photographs}", "--model", "torchvision/mobilenet_v2", "--weights", "pretrained"]
    assert refused(*words) == "download: Name or service not known; check the connection, or give the weights as a file"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(here: Path):
    assert refused("--device", "cuda").startswith("device: 'cuda' is not available here")


def test_what_cannot_be_snapped_is_refused(here: Path, photographs: Path):
    """Before anything trains; where no phase snaps, nothing is to refuse."""
    zero = ["--data", f"folder:{photographs}", "--padding", "zero"]
    message = refused(*zero)
    assert re.match(r"snap: features\.\S+: padding: it pads with 0\.0, which is no code of its input; ", message)
    assert message.endswith("train with --padding negative; or leave snapping out with --no-snap")
    assert widths(train(*zero, "--weight-bits", 32, "--activation-bits", 32)) == ["float"]


def test_images_too_small_to_train_are_refused(here: Path):
    assert refused("--loading.image-size", 0).startswith("loading.image_size: 0 is not possible")


def test_an_occupied_directory_is_refused(finished_run: Path, here: Path):
    assert f"--out {finished_run}: it holds a run with another config: " in error("train", "digits", "--out", finished_run)
    same = error("train", "digits", *ONE_STEP, "--schedule.max-steps", 2, "--out", finished_run)
    assert same.startswith(f"--out {finished_run}: it holds this very run, finished; use --resume")
    Path("file").touch()
    assert error("train", "digits", "--out", "file/run") == "--out file/run: file is a file; choose another --out"


def test_a_run_continues_a_finished_one_of_its_network_only(finished_run: Path, interrupted: Path, here: Path):
    assert refused("--from", "nowhere").startswith("nowhere: not a run directory")
    assert refused("--from", interrupted).startswith(f"from: {interrupted} is not finished; finish it with: subfour train")
    damaged = shutil.copytree(finished_run, here / "damaged")
    (damaged / "weights.safetensors").write_bytes(b"junk")
    assert refused("--from", damaged).startswith(f"{damaged}/weights.safetensors: damaged or not a safetensors file")
    assert refused("--from", finished_run, "--model", "torchvision/mobilenet_v2").startswith("model: torchvision/mobilenet_v2")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_epoch(here: Path):
    """Phase, epoch and remedy are named; every phase has one epoch here, so the newest checkpoint is that of the phase before."""
    rates = ["--schedule.float-lr", 0.01, "--schedule.lr", 1e30, "--schedule.range-lr-scale", 0]
    outcome = subfour("train", "digits", *SHORT, "--schedule.max-steps", 3, *rates, "--out", "run")
    assert outcome.code == 2
    stopped = re.fullmatch(
        r"subfour: phase (\d) of 11 \(\w+ A4W32\): .* epoch 1.*; try a lower schedule.lr; the epochs before it are kept\n",
        outcome.err,
    )
    assert stopped, outcome.err
    newest = sorted(Path("run/checkpoints").iterdir())[-1]
    assert newest.name.split("-")[1] == f"{int(stopped[1]) - 1:06d}"


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
