from pathlib import Path

import pytest

from subfour.cli.display import ProgressDisplay
from tests.cli.command import ONE_STEP, TEN_PHASES, printed, subfour
from tests.cli.studies import FLOAT, QUANTIZED, study_row, write_study
from tests.data.builders import write_folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the digits recipe with every phase, to be read only."""
    run = tmp_path_factory.mktemp("finished") / "run"
    printed("train", "digits", *ONE_STEP, "--schedule.max-steps", 2, "--out", run)
    return run


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run interrupted by the keyboard when its second epoch was done, to be copied."""
    run = tmp_path_factory.mktemp("interrupted") / "run"
    epochs_left = [2]

    def interrupt(self: ProgressDisplay, record: object) -> None:
        epochs_left[0] -= 1
        if not epochs_left[0]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgressDisplay, "epoch_done", interrupt)
        outcome = subfour("train", "digits", *ONE_STEP, *TEN_PHASES, "--out", run)
    assert (outcome.code, outcome.err) == (130, f"subfour: interrupted; go on with: subfour train --resume {run}\n")
    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two classes, ten images for training and four for validation."""
    folder = tmp_path_factory.mktemp("photographs")
    write_folder(folder, images=5)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs: a float network for each of two seeds, and one of them quantized; 1 + 1 + 9 epochs."""
    monkeypatch.chdir(tmp_path)
    rows = study_row("float", FLOAT, [0, 1]) + study_row("lsq-w3a4", f"{QUANTIZED} --quantizer lsq --method dampening", [1])
    return write_study(tmp_path / "small.toml", photographs, rows, 'float_rows = ["float"]')
