"""Opening an exported file in onnxruntime or OpenVINO, and running it on images. Imports no torch."""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subfour.export.record import METADATA, FileFormat, Record
from subfour.export.seal import is_sealed

RuntimeName = Literal["onnxruntime", "openvino"]

Arrays = dict[str, NDArray[Any]]

Run = Callable[[Mapping[str, NDArray[Any]]], Arrays]
"""From inputs by name to outputs by name."""

EXPORT = "subfour export RUN --out FILE"
"""The command that makes files which can be opened."""

OPENVINO_OPTIONS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,
}
"""float32 where it is free to choose: bfloat16, its own choice on some processors, loses on skip paths what makes codes exact.
No dynamic quantization, its own choice with VNNI: it rounds the input of a fully connected layer of 8-bit weights anew.
Not pinned: on a core that something else keeps busy, a run of 0.2 ms took 8 (2026.4.1)."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """An exported file, open in a runtime."""

    record: Record
    run: Run

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, classes] of uint8 pixels [N, 3, H, W]."""
        (logits,) = self.run({"image": pixels}).values()
        return logits


def open_file(path: Path, *, runtime: RuntimeName = "onnxruntime", threads: int = 0) -> Deployed:
    """Open a file that `subfour export` wrote for runtimes.

    Args:
        path: the file.
        runtime: which one runs it.
        threads: how many it may use; 0 leaves it to the runtime.

    Raises:
        ValueError: the file is missing, damaged, no ONNX, or not ours; or OpenVINO is not installed.
    """
    record, content = read_file(path)
    return Deployed(record=record, run=RUNTIMES[runtime](content, threads))


def read_file(path: Path) -> tuple[Record, bytes]:
    """Return what a file says about itself, and its bytes.

    Raises:
        ValueError: the file is missing, damaged, no ONNX, not ours, not meant for runtimes, or not what its metadata say.
    """
    if path.is_dir():
        raise ValueError(f"model: {path} is a folder, not an exported file; if it is a run, make one with: {EXPORT}")
    if not path.is_file():
        raise ValueError(f"model: there is no file {path}")
    content = path.read_bytes()
    if content[8:10] == b'{"':  # as safetensors begin, behind the size of their header
        raise ValueError(f"model: {path} is a model file, not an exported one; export it with: subfour export {path} --out FILE")
    sealed = is_sealed(content)
    if sealed is False:
        raise ValueError(f"model: {path} is damaged: its content does not have the checksum in its metadata; export it again")
    if (other := _other_format(content)) is not None:
        raise ValueError(f"model: {path} has the format {other}, which runtimes do not read; export again with --format onnx")
    try:
        session = _session(content, 1)
        metadata = session.get_modelmeta().custom_metadata_map
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"model: {path} is damaged, or not a file that onnxruntime reads ({reason}); make one with: {EXPORT}"
        ) from None
    if METADATA not in metadata:
        raise ValueError(f"model: {path} was not written by subfour; make one with: {EXPORT}")
    try:
        record = Record.from_json(metadata[METADATA])
    except ValueError as error:
        raise ValueError(f"model: {path}: {error}") from None
    if sealed is None:
        raise ValueError(f"model: {path} is damaged: the checksum in its metadata is none; export it again")
    if not _fits(session, record):
        raise ValueError(f"model: {path} does not take the images or give the classes that its metadata name; export it again")
    return record, content


def _other_format(content: bytes) -> FileFormat | None:
    """Return the format of a file of ours that is not meant for runtimes."""
    if b'"file_format": "qonnx"' in content:
        return "qonnx"
    try:
        return "codes" if "operations.npy" in zipfile.ZipFile(io.BytesIO(content)).namelist() else None
    except zipfile.BadZipFile:
        return None


def _fits(session: Any, record: Record) -> bool:
    """Return whether a graph takes the images, and gives one number for each of the classes, that a record names."""
    size, classes = record.preprocessing.image_size, len(record.classes)
    inputs = [(value.name, value.type, value.shape[1:]) for value in session.get_inputs()]
    outputs = [value.shape[1:] for value in session.get_outputs()]
    return inputs == [("image", "tensor(uint8)", [3, size, size])] and outputs == [[classes]]


def run_onnxruntime(content: bytes, threads: int) -> Run:
    """Return a function that runs a model in onnxruntime.

    Args:
        content: the file's bytes.
        threads: 0 leaves it to the runtime.
    """
    session = _session(content, threads)
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def run_openvino(content: bytes, threads: int, *, precision: Literal["f32", "bf16"] = "f32") -> Run:
    """Return a function that runs a model in OpenVINO.

    Args:
        content: the file's bytes.
        threads: 0 leaves it to the runtime.
        precision: of what is neither codes nor integers; bf16, which no file of ours is exact in, is for rivals.

    Raises:
        ValueError: OpenVINO is not installed.
    """
    try:
        import openvino  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError:
        raise ValueError("runtime: openvino is not installed; install it with: pip install openvino") from None
    core = _only_core(openvino.Core)
    options = {**OPENVINO_OPTIONS, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(content), "CPU", options)
    request = compiled.create_infer_request()
    names: Sequence[str] = [output.any_name for output in compiled.outputs]

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        outputs = request.infer(dict(inputs)).values()
        return {name: np.array(value) for name, value in zip(names, outputs, strict=True)}

    return run


RUNTIMES: dict[RuntimeName, Callable[[bytes, int], Run]] = {"onnxruntime": run_onnxruntime, "openvino": run_openvino}


@cache
def _only_core(make: Callable[[], Any]) -> Any:
    """Return OpenVINO's core, one for the whole process.

    Each core's CPU plugin sets an alternate signal stack and restores the one before it when it goes. Where cores end in the
    order in which they began, that is one already freed, and the next signal with a handler (SIGCHLD, once torch has had loader
    workers) ends the process with a segmentation fault. Measured with OpenVINO 2026.4.1.
    """
    return make()


def _session(content: bytes, threads: int) -> Any:
    import onnxruntime  # noqa: PLC0415 (slow to import)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what matters is raised, too
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
