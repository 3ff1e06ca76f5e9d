"""Programs as files: each is written once and only read."""

from functools import cache

import numpy as np
import onnx

from subfour.export.formats import ONNX_WRITERS
from subfour.export.record import FileFormat, Record
from subfour.export.runtime import RUNTIMES
from subfour.export.seal import seal
from subfour.export.verify import Verifier
from subfour.integer.program import Program
from tests.integer.programs import PREPROCESSING, random_pixels, stock_programs

CLASSES = tuple(f"class {number}" for number in range(10))


def record_for(program: Program, *, file_format: FileFormat = "onnx", classes: tuple[str, ...] = CLASSES) -> Record:
    """Return the record of a file without a run."""
    return Record(
        file_format=file_format,
        version="0.1.0",
        network="subfour/tiny_mobilenet_v3",
        architecture={"width": 1.0, "strides": [], "dropout": None},
        classes=classes,
        preprocessing=PREPROCESSING,
        weight_bits=4,
        activation_bits=4,
        snapping={} if program.snapped else None,
        accuracy=None,
    )


@cache
def program_of(name: str, *, snapped: bool) -> Program:
    """Return a stock network's program as files hold it."""
    programs = stock_programs(name)
    return programs.settled if snapped else programs.built


@cache
def model_of(name: str, *, snapped: bool, file_format: FileFormat = "onnx") -> onnx.ModelProto:
    """Return a stock network's file."""
    program = program_of(name, snapped=snapped)
    return ONNX_WRITERS[file_format](program).write(record_for(program, file_format=file_format))


def content_of(name: str, *, snapped: bool, file_format: FileFormat = "onnx") -> bytes:
    """Return the file's bytes."""
    return seal(model_of(name, snapped=snapped, file_format=file_format).SerializeToString())


def verified(program: Program, content: bytes) -> Verifier:
    """Return a verifier that has seen two images, end to end and part by part; torch is left out."""
    pixels = random_pixels().numpy()
    runs = {"torch": lambda _: {program.output: np.zeros((2, len(CLASSES)))}}
    verifier = Verifier(content, program, runs=runs, runtimes=tuple(RUNTIMES), threads=1)
    verifier.layer_by_layer(pixels, verifier.end_to_end(pixels, np.zeros(2, dtype=np.int64)))
    return verifier
