"""The programs in docs/export.md run as they stand, in the folder of someone who has a run, a file and a photograph."""

import re
from pathlib import Path

import pytest

from subfour.data.sources import load_images
from tests.cli.command import printed

ROOT = Path(__file__).parent.parent


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
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "export.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    capsys.readouterr()
    for program in programs:
        exec(compile(program, "export.md", "exec"), {})
    assert capsys.readouterr().out.split() == [str(int(digits.labels[0]))] * 2
