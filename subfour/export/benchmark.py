"""How fast an exported file runs here, beside float and standard int8 of the same network.

The rivals are made on the spot from an untrained network of the same name and size, because speed does not depend on weights:
float32 ONNX, and what onnxruntime's own static quantization makes of it (QDQ, weights per channel, uint8 activations, ranges from
random pixels). Runs are interleaved, so that whatever else the machine does falls on all of them; medians are compared.
"""

import contextlib
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subfour.export.deployed import deployed_program
from subfour.export.floating import FloatWriter
from subfour.export.record import Record
from subfour.export.runtime import RUNTIMES, Run, RuntimeName
from subfour.export.untrained import random_pixels, untrained_network
from subfour.integer.program import IMAGE
from subfour.models.zoo import Architecture

WARM_UP = 3
"""Runs of each before any is timed."""

BASE = "float in onnxruntime"
"""What ratios are over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One executor at one batch size."""

    executor: str
    batch: int
    milliseconds: float
    """Median of one run."""
    ratio: float
    """Of the medians, over float in onnxruntime."""
    images_per_second: float


def benchmark(
    content: bytes,
    record: Record,
    *,
    runtimes: Sequence[RuntimeName] = tuple(RUNTIMES),
    batches: Sequence[int] = (1, 16),
    threads: int = 1,
    repeats: int = 30,
) -> list[Timing]:
    """Time a file and its rivals.

    Args:
        content: of the file.
        record: of the file.
        runtimes: to run everything in; the float network runs in onnxruntime in any case.
        batches: images at once.
        threads: of each runtime.
        repeats: of each measurement.

    Raises:
        ValueError: a runtime is not installed.
    """
    float_model = float_onnx(record)
    files = {"float": float_model, "int8": static_int8(float_model, record), "subfour": content}
    runs = {f"{kind} in {name}": RUNTIMES[name](file, threads) for kind, file in files.items() for name in runtimes}
    runs.setdefault(BASE, RUNTIMES["onnxruntime"](float_model, threads))
    return [timing for batch in batches for timing in time_batch(runs, record, batch=batch, repeats=repeats)]


def time_batch(runs: Mapping[str, Run], record: Record, *, batch: int, repeats: int) -> list[Timing]:
    """Time several executors of one network at one batch size, one after the other, again and again."""
    pixels = random_pixels(batch, record.preprocessing.image_size).numpy()
    medians = interleaved_medians({name: _call(run, pixels) for name, run in runs.items()}, repeats)
    return [
        Timing(
            executor=name,
            batch=batch,
            milliseconds=1000 * seconds,
            ratio=seconds / medians[BASE],
            images_per_second=batch / seconds,
        )
        for name, seconds in medians.items()
    ]


def interleaved_medians(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each call; one of each at a time, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(WARM_UP + repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if round_number >= WARM_UP:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def float_onnx(record: Record) -> bytes:
    """Return the float network of a file's name and size, untrained, as ONNX."""
    network = untrained_network(
        record.network,
        record.preprocessing,
        classes=len(record.classes),
        architecture=Architecture(**{**record.architecture, "strides": tuple(record.architecture["strides"])}),
    )
    content: bytes = FloatWriter(deployed_program(network, record.preprocessing, None)).write(record).SerializeToString()
    return content


def static_int8(float_model: bytes, record: Record) -> bytes:
    """Return what onnxruntime's static quantization makes of a float network."""
    from onnxruntime import quantization  # noqa: PLC0415 (slow to import)
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            pixels = random_pixels(4, record.preprocessing.image_size).numpy()
            self._batches: Iterator[dict[str, NDArray[Any]]] = iter([{IMAGE: pixels}])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as folder, _quiet_root_logger():
        given, prepared, made = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        given.write_bytes(float_model)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            *(prepared, made, Reader()),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # kernels for VNNI multiply uint8 by int8
            quant_format=quantization.QuantFormat.QDQ,
        )
        return made.read_bytes()


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep advice on preparing models, which onnxruntime logs as warnings of the root logger, off the screen."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _call(run: Run, pixels: NDArray[np.uint8]) -> Callable[[], object]:
    return lambda: run({IMAGE: pixels})
