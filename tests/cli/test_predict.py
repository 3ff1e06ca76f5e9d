import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.command import error, printed
from tests.export.files import CLASSES, content_of

ROOT = Path(__file__).parents[2]

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

TRAINING = [
    {"scikit-learn": "sklearn"}.get(name, name) for name in (requirement.partition(">=")[0] for requirement in EXTRAS["train"])
]
"""What `pip install .` alone does not bring, as it is imported."""

WITHOUT_TRAINING = f"""
import sys

class NoTraining:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(TRAINING)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NoTraining())
from subfour.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file and an image."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "model.onnx").write_bytes(content_of("subfour/tiny_mobilenet_v3", snapped=True))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / "image.png")
    return folder


def test_it_runs_where_nothing_is_installed_that_trains(folder: Path):
    words = ["predict", folder / "model.onnx", folder / "image.png", "--json"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRAINING, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(printed(*words))


def test_there_is_nothing_that_trains_where_it_runs():
    """Else the test above would show nothing."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRAINING, "plan", "digits"], capture_output=True, text=True, check=False)
    assert (done.returncode, "is not installed; install what training needs" in done.stderr) == (2, True)


def test_both_runtimes_and_top(folder: Path):
    for runtime in ("onnxruntime", "openvino"):
        title, headings, *rows = printed(
            "predict", folder / "model.onnx", folder / "image.png", "--runtime", runtime, "--top", 2
        ).splitlines()
        assert title.endswith(f"in {runtime}")
        assert headings.split() == ["image", "class", "probability", "%"]
        assert len(rows) == 2
        assert any(name in rows[0] for name in CLASSES)


def test_wrong_arguments_are_named(folder: Path):
    file = folder / "model.onnx"
    assert error("predict", file) == "images: name one or more image files"
    assert error("predict", file, folder / "image.png", "--top", 0) == "top: 0 is not possible; use 1 or more"
    assert error("predict", file, file) == f"image: {file} is none of BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP"
    assert error("predict", folder / "image.png", folder / "image.png").startswith("model: ")
    assert (
        error("predict", file, folder / "image.png", "--top", 99)
        == f"top: 99 is more than the 10 classes of {file}; use 10 or less"
    )
    assert error("predict", folder, folder / "image.png").startswith(f"model: {folder} is a folder, not an exported file")
    assert error("predict", file, folder / "image.png", "--threads", 3_000_000_000).startswith(
        "threads: 3000000000 is not possible"
    )
    assert error("predict", file, folder) == f"image: {folder} is a folder; name the image files in it"


def test_a_model_file_is_to_be_exported_first(folder: Path):
    model = Path(__file__).parents[2] / "results" / "models" / "digits-w2a2.safetensors"
    message = error("predict", model, folder / "image.png")
    assert message == f"model: {model} is a model file, not an exported one; export it with: subfour export {model} --out FILE"


def test_by_default_there_are_three_classes_for_each_image(folder: Path):
    (guesses,) = json.loads(printed("predict", folder / "model.onnx", folder / "image.png", "--json")).values()
    assert len(guesses) == 3
