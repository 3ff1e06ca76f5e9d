"""A file of codes and the reference are all that it takes: numpy, and neither torch nor this package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from subfour.data.preprocess import normalize
from subfour.integer import reference
from subfour.profit.model_file import read_model
from tests.cli.command import printed

MODEL = Path(__file__).parents[2] / "results" / "models" / "digits-w4a4.safetensors"

ALONE = """
import runpy, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "subfour"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nothing())
sys.argv = ["reference.py", "model.npz", "pixels.npy"]
runpy.run_path("reference.py", run_name="__main__")
"""


@torch.no_grad()
def test_the_reference_runs_a_file_of_codes_with_numpy_alone(tmp_path: Path):
    printed("export", MODEL, "--format", "codes", "--out", tmp_path / "model.npz")
    shutil.copy(reference.__file__, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    done = subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e[-+]\d+)?", done.stdout)]
    trained = read_model(MODEL)
    logits = trained.network(normalize(torch.from_numpy(pixels), trained.data.preprocessing))
    np.testing.assert_allclose(np.reshape(shown, (2, 10)), logits.numpy(), rtol=1e-5, atol=1e-5)
