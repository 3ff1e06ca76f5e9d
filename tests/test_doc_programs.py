"""The programs in README.md and docs/export.md run as they stand, for whoever has a run, a file and a photograph."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from subfour.data.preprocess import evaluation_pixels
from subfour.data.sources import load_images
from subfour.export.runtime import read_file
from tests.cli.command import printed

ROOT = Path(__file__).parent.parent


def blocks(language: str, page: Path) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_the_programs_of_the_export_page_name_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    model = Path("runs/mine/model.safetensors")
    model.parent.mkdir(parents=True)
    model.write_bytes((ROOT / "results" / "models" / "digits-w4a4.safetensors").read_bytes())
    printed("export", model, "--out", "mine.onnx")
    digits = load_images("digits").splits["validation"]
    digits.image(0).save("one.jpg", quality=100)
    programs = blocks("python", ROOT / "docs" / "export.md")
    capsys.readouterr()
    for program in programs:
        exec(compile(program, "export.md", "exec"), {})
    assert capsys.readouterr().out.split() == [str(int(digits.labels[0]))] * 2


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
def test_the_program_in_c_names_the_class(tmp_path: Path):
    openvino = Path(pytest.importorskip("openvino").__path__[0])
    (program,) = blocks("c", ROOT / "docs" / "export.md")
    (tmp_path / "run.c").write_text(program)
    libraries = [str(library) for library in (openvino / "libs").glob("libopenvino_c.so.*")]
    words = ["gcc", f"-I{openvino}/include", "run.c", "-o", "run", *libraries, f"-Wl,-rpath,{openvino}/libs"]
    subprocess.run(words, cwd=tmp_path, check=True)
    printed("export", ROOT / "results" / "models" / "digits-w4a4.safetensors", "--out", tmp_path / "mine.onnx")
    record, _ = read_file(tmp_path / "mine.onnx")
    digits = load_images("digits").splits["validation"]
    for index in range(3):
        pixels = evaluation_pixels(digits.image(index), record.preprocessing).tobytes()
        found = subprocess.run(["./run"], cwd=tmp_path, input=pixels, capture_output=True, check=True)
        assert found.stdout == f"class {int(digits.labels[index])}\n".encode()


def test_the_programs_of_the_readme_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(ROOT)
    loading, converting = blocks("python", ROOT / "README.md")
    exec(compile(loading, "README.md", "exec"), {})
    assert capsys.readouterr().out.endswith("4 4\ntorch.Size([1, 10])\n")
    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    names: dict[str, Any] = {"model": own, "images": torch.randn(4, 3, 16, 16), "labels": torch.zeros(4)}
    exec(compile(converting, "README.md", "exec"), names)
    assert [rule.name for rule in names["rules"]] == ["0", "4"]
    own(names["images"]).sum().backward()
    assert all(parameter.grad is not None for name, parameter in own.named_parameters() if "quantizer" in name)
