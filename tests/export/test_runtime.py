import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from subfour.export.codes import codes_file
from subfour.export.record import METADATA, Record
from subfour.export.runtime import RUNTIMES, RuntimeName, open_file, read_file
from subfour.export.seal import seal
from tests.export.files import content_of, model_of, program_of, record_for
from tests.integer.programs import PREPROCESSING, random_pixels

TINY = "subfour/tiny_mobilenet_v3"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(content_of(TINY, snapped=True))
    return path


def message(path: Path) -> str:
    """Return why a file is refused."""
    with pytest.raises(ValueError, match=r"^model: ") as refused:
        read_file(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_says_what_it_is(file: Path):
    record, content = read_file(file)
    assert record == record_for(program_of(TINY, snapped=True))
    assert content == file.read_bytes()


def test_both_runtimes_give_the_same_answers(file: Path):
    pixels = random_pixels().numpy()
    one, other = (open_file(file, runtime=runtime, threads=1).logits(pixels) for runtime in RUNTIMES)
    assert one.shape == (2, 10)
    assert np.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_missing_file_is_named(tmp_path: Path):
    assert message(tmp_path / "no.onnx") == f"model: there is no file {tmp_path / 'no.onnx'}"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_damaged(file: Path, share: float):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert message(file).startswith(f"model: {file} is damaged, or not a file that onnxruntime reads (")


def test_what_is_no_onnx_is_refused(file: Path):
    file.write_text("a text")
    said = message(file)
    assert said.startswith(f"model: {file} is damaged, or not a file that onnxruntime reads (")
    assert said.endswith("); make one with: subfour export RUN --out FILE")


def test_a_foreign_onnx_file_is_refused(file: Path):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "foreign", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), file)
    assert message(file).startswith(f"model: {file} was not written by subfour; make one with: subfour export")


@pytest.mark.parametrize("changes", [{"classes": ("one",)}, {"preprocessing": replace(PREPROCESSING, image_size=31)}])
def test_a_graph_that_is_not_what_its_metadata_say_is_refused(file: Path, changes: dict[str, Any]):
    model = onnx.ModelProto()
    model.CopyFrom(model_of(TINY, snapped=True))
    helper.set_model_props(model, {METADATA: replace(record_for(program_of(TINY, snapped=True)), **changes).to_json()})
    file.write_bytes(seal(model.SerializeToString()))
    assert message(file) == f"model: {file} does not take the images or give the classes that its metadata name; export it again"


def test_a_foreign_graph_with_a_record_and_a_checksum_is_refused(file: Path):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "foreign", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, {METADATA: record_for(program_of(TINY, snapped=True)).to_json()})
    file.write_bytes(seal(model.SerializeToString()))
    assert "does not take the images or give the classes" in message(file)


def test_metadata_of_another_version_are_refused(file: Path):
    model = onnx.ModelProto()
    model.CopyFrom(model_of(TINY, snapped=True))
    helper.set_model_props(model, {METADATA: '{"format": "subfour export 0"}'})
    onnx.save(model, file)
    assert message(file) == f"model: {file}: its metadata are not those of 'subfour export 1'; export it again"


def test_a_file_for_fpga_flows_is_refused(file: Path):
    file.write_bytes(content_of(TINY, snapped=True, file_format="qonnx"))
    assert message(file) == f"model: {file} has the format qonnx, which runtimes do not read; export again with --format onnx"


def test_a_file_for_firmware_is_refused_and_has_no_checksum(file: Path):
    program = program_of(TINY, snapped=True)
    record = record_for(program, file_format="codes")
    file.write_bytes(codes_file(program, record))
    assert message(file) == f"model: {file} has the format codes, which runtimes do not read; export again with --format onnx"
    assert "sha256" not in record.to_json()
    content = bytearray(file.read_bytes())
    content[content.rindex(b"PK\x01\x02")] ^= 1  # the directory at its end
    file.write_bytes(content)
    assert message(file).startswith(f"model: {file} is damaged, or not a file that onnxruntime reads")
    assert Record.from_json(record.to_json()) == record


def test_a_runtime_that_is_not_installed_is_named(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    missing: RuntimeName = "openvino"
    with pytest.raises(ValueError, match=r"runtime: openvino is not installed; install it with: pip install openvino"):
        open_file(file, runtime=missing)


TWO_FILES_OPENED = """
import ctypes, gc, pathlib, sys
from subfour.export.runtime import run_openvino

class Stack(ctypes.Structure):
    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def signal_stack():
    stack = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.place, stack.size

content = pathlib.Path(sys.argv[1]).read_bytes()
first = run_openvino(content, 1)
one = signal_stack()
second = run_openvino(content, 1)
two = signal_stack()
del first
gc.collect()
del second
gc.collect()
assert signal_stack() == two == one, (one, two, signal_stack())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO sets a signal stack on Linux")
def test_files_opened_in_openvino_leave_no_freed_signal_stack_behind(file: Path):
    """With a core each, the second one to end would put back the stack of the first, which is gone."""
    words = [sys.executable, "-c", TWO_FILES_OPENED, str(file)]
    child = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (child.returncode, child.stderr) == (0, "")
