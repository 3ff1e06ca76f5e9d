"""`results/exactness.csv`: what executors compute beside the integer reference, one row per file and executor."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from table import RESULTS, provenance, read_rows, write_rows

from subfour.export.comparison import Comparison
from subfour.export.record import Record
from subfour.export.runtime import Arrays, Run
from subfour.integer.program import IMAGE, Program

TABLE = RESULTS / "exactness.csv"
COLUMNS = [
    *("name", "widths", "pixels", "format", "constants", "executor", "version", "data", "images", "exact_images", "top1"),
    *("codes", "different_codes", "first_difference", "parts", "different_parts", "date", "cpu", "commit"),
]
SAME_FILE = ("name", "format", "constants")
"""Rows that agree in these are replaced together."""

RANDOM = "random pixels"


def rows_of(name: str, record: Record, comparisons: Mapping[str, Comparison], data: str) -> list[dict[str, Any]]:
    """Return the rows of one file; the reference is what all others are compared with."""
    return [
        {
            "name": name,
            "widths": f"A{record.activation_bits}W{record.weight_bits}",
            "pixels": record.preprocessing.image_size,
            "format": record.file_format,
            "constants": "snapped" if record.snapped else "not snapped",
            "executor": executor,
            "version": version("subfour" if executor == "reference" else executor),
            "data": data,
            "images": comparison.images,
            "exact_images": comparison.exact_images,
            "top1": "" if data == RANDOM else f"{100 * comparison.correct / comparison.images:.2f}",
            "codes": comparison.codes or "",
            "different_codes": sum(comparison.different_codes.values()) if comparison.codes else "",
            "first_difference": comparison.first_difference or "",
            "parts": comparison.parts or "",
            "different_parts": len(comparison.different_parts) if comparison.parts else "",
            **provenance(),
        }
        for executor, comparison in comparisons.items()
    ]


def record_rows(rows: list[dict[str, Any]]) -> None:
    """Print the rows of one file, and write them into the table in place of earlier ones."""
    for row in rows:
        print({key: value for key, value in row.items() if value != ""}, flush=True)
    file = [rows[0][key] for key in SAME_FILE]
    kept = [row for row in read_rows(TABLE) if [row[key] for key in SAME_FILE] != file]
    write_rows(TABLE, COLUMNS, [*kept, *rows])


def qonnx_run(content: bytes, program: Program) -> Run:
    """Return a function that runs a QONNX file in qonnx's own executor, image by image, and gives logits and codes."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    model = ModelWrapper(onnx.load_from_string(content)).transform(InferShapes())
    names = [program.output, *(quantize.name for quantize in program.quantizers)]

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        images = [execute_onnx(model, {IMAGE: image[None]}, return_full_exec_context=True) for image in inputs[IMAGE]]
        return {name: np.concatenate([values[name] for values in images]) for name in names}

    return run
