import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from subfour.profit.method import ProfitRun
from subfour.profit.phases import Phase
from tests.cli.command import ONE_STEP, TEN_PHASES, error, printed, subfour
from tests.data.builders import write_folder

SUBFOUR = [sys.executable, "-c", "from subfour.cli.main import main; main()"]


@pytest.fixture
def unfinished(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of the interrupted run."""
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the interrupted one would have been."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    printed("train", "digits", *ONE_STEP, *TEN_PHASES, "--out", run)
    return run


def same_outcome(run: Path, other: Path) -> bool:
    """Return whether two runs have the same final weights bit for bit, freeze order and result, times and commit aside."""
    results = [json.loads((path / "result.json").read_text()) for path in (run, other)]
    for result in results:
        for name in ("seconds", "commit", "dirty"):
            del result[name]
    files = ("model.safetensors", "weights.safetensors", "sensitivity.json")
    return results[0] == results[1] and all((run / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_it_goes_on_where_it_was_and_ends_as_if_never_interrupted(unfinished: Path, uninterrupted: Path):
    lines = printed("train", "--resume", unfinished).split("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in lines] == [f"{phase}/11" for phase in range(3, 12)]
    assert same_outcome(unfinished, uninterrupted)
    places = [json.loads((run / "environment.json").read_text()) for run in (unfinished, uninterrupted)]
    assert [place.keys() - {"resumed"} for place in places[0]["resumed"]] == [places[1].keys()]


@pytest.mark.slow
def test_the_keyboard_and_kill_9_can_do_no_harm(uninterrupted: Path, tmp_path: Path):
    """SIGINT in the third epoch or later, SIGKILL after that, then to the end; as users do it."""
    run = tmp_path / "run"
    commands = [["train", "digits", *ONE_STEP, *TEN_PHASES, "--out", str(run)], ["train", "--resume", str(run)]]
    for words, stop, epochs in zip(commands, (signal.SIGINT, signal.SIGKILL), (2, 5), strict=True):
        with subprocess.Popen([*SUBFOUR, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            metrics = run / "metrics.jsonl"
            while not metrics.exists() or metrics.read_bytes().count(b"\n") < epochs:
                assert process.poll() is None, "it ended before it could be stopped"
                time.sleep(0.01)
            process.send_signal(stop)
            _, err = process.communicate()
        if stop == signal.SIGINT:
            assert (process.returncode, err) == (130, f"subfour: interrupted; go on with: subfour train --resume {run}\n")
    printed("train", "--resume", run)
    assert same_outcome(run, uninterrupted)


@pytest.mark.slow
def test_sigterm_says_how_to_go_on_and_exits_with_143(uninterrupted: Path, tmp_path: Path):
    """As a scheduler does it that takes the machine away, and from another checkpoint every moment before that."""
    run = tmp_path / "run"
    words = ["train", "digits", *ONE_STEP, *TEN_PHASES, "--out", str(run), "--checkpoint-minutes", "0"]
    with subprocess.Popen([*SUBFOUR, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not list(run.glob("checkpoints/checkpoint-000001-step-*")):
            assert process.poll() is None, "it ended before it could be stopped"
            time.sleep(0.01)
        process.terminate()
        _, err = process.communicate()
    assert (process.returncode, err) == (143, f"subfour: terminated; go on with: subfour train --resume {run}\n")
    printed("train", "--resume", run, "--checkpoint-minutes", "inf")
    assert same_outcome(run, uninterrupted)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
def test_sigterm_for_the_whole_group_ends_the_trainer_after_its_step_and_no_decoder_before(tmp_path: Path):
    """As `timeout`, systemd and torchrun do it, wherever the trainer stands: decoders that died would raise there."""
    run = tmp_path / "run"
    loading = ["--loading.augment", "resized-crop", "--loading.workers", "2", "--schedule.max-steps", "20"]
    words = ["train", "digits", *ONE_STEP, *loading, *TEN_PHASES, "--out", str(run), "--checkpoint-minutes", "0"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*SUBFOUR, *words], **pipes, start_new_session=True) as process:
        while not list(run.glob("checkpoints/checkpoint-000000-step-*")):
            assert process.poll() is None, "it ended before it could be stopped"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate()
    assert (process.returncode, err) == (143, f"subfour: terminated; go on with: subfour train --resume {run}\n")
    assert list(run.glob("checkpoints/checkpoint-*"))


def test_a_time_that_is_none_is_refused(unfinished: Path):
    for words in (["train", "digits"], ["train", "--resume", unfinished]):
        assert error(*words, "--checkpoint-minutes", -1).startswith("checkpoint_minutes: -1.0 is not possible; use 0 or more")


@pytest.mark.slow
def test_tensorboard_counts_on(unfinished: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    printed("train", "--resume", unfinished, "--tensorboard")
    events = EventAccumulator(str(unfinished / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(3, 12))


@pytest.mark.slow
def test_a_continued_run_goes_on_without_the_run_that_it_continues(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its first checkpoint holds all that it took from there: the folder may be gone."""
    earlier, run, other = Path(shutil.copytree(finished_run, tmp_path / "earlier")), tmp_path / "run", tmp_path / "other"
    words = ["train", "digits", *ONE_STEP, "--from", earlier, "--weight-bits", 3, "--activation-bits", 3, "--no-snap", "--out"]
    printed(*words, other)
    train_phase = ProfitRun._train_phase

    def train_first_phase(run: ProfitRun, phase: Phase) -> None:
        train_phase(run, phase) if run.state.phase == 0 else interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(ProfitRun, "_train_phase", train_first_phase)
        assert subfour(*words, run).code == 130
    shutil.rmtree(earlier)
    printed("train", "--resume", run)
    assert same_outcome(run, other)


def test_a_run_goes_on_where_its_images_lie_now(unfinished_on_photos: tuple[Path, Path], tmp_path: Path):
    """And remembers it."""
    photos, run = unfinished_on_photos
    moved = photos.rename(tmp_path / "moved")
    words = ("--data", f"folder:{moved}", "--device", "cpu", "--loading.workers", 0, "--engine", "plain")
    printed("train", "--resume", run, *words)
    config = json.loads((run / "config.json").read_text())
    assert (config["data"], config["device"], config["loading"]["workers"]) == (f"folder:{moved}", "cpu", 0)
    assert config["engine"] == "plain"


def test_other_images_are_none_that_lie_elsewhere(unfinished_on_photos: tuple[Path, Path], tmp_path: Path):
    photos, run = unfinished_on_photos
    other = Path(shutil.copytree(photos, tmp_path / "other"))
    (other / "train" / "cat" / "1.png").unlink()
    message = error("train", "--resume", run, "--data", f"folder:{other}")
    assert message == f"data: folder:{other} has 3 training images, {run} began with 4; bring them back, or start anew"


def test_only_the_main_worker_shows_a_finished_run(finished_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    assert printed("train", "--resume", finished_run, "--json") == ""


def test_a_finished_run_says_so_and_shows_its_result(finished_run: Path):
    shown = printed("train", "--resume", finished_run)
    assert shown.startswith(f"{finished_run} is finished; nothing is left to train.\n\ndigits: subfour/tiny_mobilenet_v3")
    outcome = subfour("train", f"--resume={finished_run}", "--json")
    assert json.loads(outcome.out) == json.loads((finished_run / "result.json").read_text())
    assert outcome.err == f"{finished_run} is finished; nothing is left to train.\n"


def test_a_run_keeps_its_recipe_and_options(finished_run: Path):
    kept = "(a run that goes on keeps its own recipe and options)"
    for words in (["digits", "--resume", finished_run], ["--resume", finished_run, "digits"]):
        assert error("train", *words) == f"argument: 'digits' is one too many; see subfour train --help {kept}"
    message = error("train", "--resume", finished_run, "--schedule.lr", 3)
    assert message == f"option: there is no --schedule.lr; see subfour train --help {kept}"


def test_what_is_not_a_run_is_refused(tmp_path: Path):
    assert error("train", "--resume", tmp_path).startswith(f"{tmp_path}: not a run directory, it has no config.json")
    assert error("train", "--resume").startswith("Missing value for argument '--resume'")


def test_another_model_in_the_configuration_is_refused(unfinished: Path):
    config = json.loads((unfinished / "config.json").read_text()) | {"model": "torchvision/mobilenet_v3_small"}
    (unfinished / "config.json").write_text(json.dumps(config))
    changed = f"config: {unfinished / 'config.json'} is not what it was when the run began; bring it back"
    assert error("train", "--resume", unfinished) == changed


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(unfinished: Path):
    for file in (unfinished / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    outcome = subfour("train", "--resume", unfinished)
    *warnings, last = outcome.err.splitlines()
    assert all(line.startswith("subfour: warning: checkpoint ") for line in warnings)
    assert last.startswith(f"subfour: {unfinished / 'checkpoints'}: every checkpoint in it is damaged")
    assert outcome.code == 2


def test_data_that_changed_meanwhile_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A class more would change the head, other images their normalisation: neither goes on silently."""
    photos, run = tmp_path / "photos", tmp_path / "run"
    write_folder(photos)
    with monkeypatch.context() as patch:
        patch.setattr("subfour.cli.train._train", interrupt)
        assert subfour("train", "digits", *ONE_STEP, *TEN_PHASES, "--data", f"folder:{photos}", "--out", run).code == 130
    write_folder(photos, classes=["fox"])
    assert error("train", "--resume", run) == f"data: folder:{photos} is not what it was when {run} began; bring it back"


@pytest.mark.parametrize("change", ["add", "remove", "rename"])
def test_images_that_came_or_went_meanwhile_are_refused(unfinished_on_photos: tuple[Path, Path], change: str):
    """The normalisation may stay what it was, the order of the images does not."""
    photos, run = unfinished_on_photos
    image = photos / "train" / "cat" / "1.png"
    if change == "add":
        shutil.copy(image, image.with_name("3.png"))
    else:
        (image.unlink if change == "remove" else lambda: image.rename(image.with_name("0a.png")))()
    counts = {"add": "5 training images", "remove": "3 training images", "rename": "4 training images"}
    same = " of other names or labels" if change == "rename" else ""
    message = f"data: folder:{photos} has {counts[change]}, {run} began with 4{same}; bring them back, or start anew"
    assert error("train", "--resume", run) == message


def test_a_run_from_before_images_were_counted_goes_on(unfinished_on_photos: tuple[Path, Path]):
    _, run = unfinished_on_photos
    record = json.loads((run / "data.json").read_text())
    del record["images"]
    (run / "data.json").write_text(json.dumps(record))
    printed("train", "--resume", run)


@pytest.fixture
def unfinished_on_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Four photographs that look all the same, and a run on them that has just begun."""
    photos, run = tmp_path / "photos", tmp_path / "run"
    write_folder(photos)
    for file in photos.glob("*/*/*.png"):
        shutil.copy(photos / "val" / "dog" / "0.png", file) if file.name != "0.png" or file.parent.name != "dog" else None
    for file in photos.glob("train/dog/0.png"):
        shutil.copy(photos / "val" / "dog" / "0.png", file)
    with monkeypatch.context() as patch:
        patch.setattr("subfour.cli.train._train", interrupt)
        assert subfour("train", "digits", *ONE_STEP, *TEN_PHASES, "--data", f"folder:{photos}", "--out", run).code == 130
    return photos, run


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_interrupted_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("subfour.cli.train._train", interrupt)
        assert subfour("train", "digits", *ONE_STEP, *TEN_PHASES, "--out", run).code == 130
    printed("train", "--resume", run)
    assert same_outcome(run, uninterrupted)
