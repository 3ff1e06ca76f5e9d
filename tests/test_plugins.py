"""Quantizers and networks of another package: the one of examples/mylab, and packages that are wrong."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.command import SHORT

MYLAB = Path(__file__).parents[1] / "examples" / "mylab"


def install(folder: Path, distribution: str, module: str, entries: dict[str, dict[str, str]]) -> None:
    """Put a package where pip would have put it."""
    (folder / f"{distribution}.py").write_text(module)
    record = folder / f"{distribution}-0.1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in named.items()) for group, named in entries.items()
    ]
    (record / "entry_points.txt").write_text("\n".join(sections))


def subfour(installed: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which finds the packages in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "subfour", *map(str, arguments)]
    return subprocess.run(words, cwd=installed, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def mylab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((MYLAB / "pyproject.toml").read_text())["project"]
    install(folder, project["name"], (MYLAB / "mylab.py").read_text(), project["entry-points"])
    return folder


def test_another_package_s_quantizer_and_network_train_and_become_integers(mylab: Path):
    """From training to a file that is exact in every executor; then the package is removed, and the run says what it misses."""
    options = ["--quantizer", "mylab/clip", "--model", "mylab/separable", "--architecture.width", 0.5, "--out", "run", *SHORT]
    trained = subfour(mylab, "train", "digits", *options)
    assert trained.returncode == 0, trained.stderr
    rows = json.loads(subfour(mylab, "inspect", "run", "--json").stdout)
    assert [row["kind"] for row in rows] == ["stem", "depthwise", "pointwise", "depthwise", "pointwise", "linear"]
    assert [row["quantizer"] for row in rows][:2] == ["ImageQuantizer image", "PACT unsigned"]
    assert subfour(mylab, "export", "run", "--out", "own.onnx").returncode == 0
    verified = json.loads(subfour(mylab, "verify", "own.onnx", "--run", "run", "--data", "digits", "--json").stdout)
    assert verified["exact"], verified

    (mylab / "mylab-0.1.dist-info").rename(mylab / "removed")
    removed = subfour(mylab, "evaluate", "run", "--data", "digits")
    assert removed.returncode == 2
    assert "mylab/clip" in removed.stderr
    assert "Traceback" not in removed.stderr


WRONG = """
import torch
def text(num_classes): return "a network"
number = 4
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantizer", "wrong/pair"], "quantizer: wrong/pair is of type int; its package must name a QuantizerPair"),
        (["--quantizer", "wrong/missing"], "quantizer: wrong/missing, which is wrong:nothing, cannot be loaded: AttributeError"),
        (["--model", "wrong/number"], "model: wrong/number is of type int; its package must name a class or a function"),
        (["--model", "wrong/text"], "model: wrong/text returns a str; its package must name what returns a torch.nn.Module"),
        (
            ["--model", "wrong/text", "--architecture.width", 0.5],
            "architecture.width: wrong/text keeps its own; it takes num_classes",
        ),
        (["--model", "wrong/txt"], "model: 'wrong/txt' is not known; did you mean wrong/text?"),
    ],
)
def test_what_is_wrong_with_a_package_is_one_line(tmp_path: Path, options: list[object], message: str):
    quantizers = {"pair": "wrong:number", "missing": "wrong:nothing"}
    install(
        tmp_path,
        "wrong",
        WRONG,
        {"subfour.quantizers": quantizers, "subfour.models": {"number": "wrong:number", "text": "wrong:text"}},
    )
    outcome = subfour(tmp_path, "train", "digits", "--out", "run", *options)
    assert outcome.returncode == 2
    assert message in " ".join(outcome.stderr.split())
    assert not (tmp_path / "run").exists()
