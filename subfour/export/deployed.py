"""From a trained model to what is written into a file: its program, and the record that goes with it."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subfour.data.preprocess import Preprocessing
from subfour.export.record import FileFormat, Record
from subfour.integer.build import build_program
from subfour.integer.program import Layer, Program
from subfour.integer.settle import settle
from subfour.integer.snap import measure, snap
from subfour.profit.model_file import TrainedModel
from subfour.profit.result import RESULT_FILE
from subfour.rundir import RunDirectory


@torch.no_grad()
def deployed_program(trained: TrainedModel, preprocessing: Preprocessing, batches: Iterable[Tensor] | None) -> Program:
    """Return the program of a trained model, in the constants that files hold.

    Args:
        trained: from `read_model`.
        preprocessing: its own, perhaps with another size.
        batches: uint8 pixels [N, 3, H, W] to snap with; None: do not snap.

    Raises:
        ValueError: the network is still float, or cannot be exported; the message says why.
    """
    program = build_program(trained.model, preprocessing, dtype=torch.float64)
    if batches is None:
        return program
    snapping = measure(program, batches)
    return settle(snap(program, snapping), snapping)


def resized(preprocessing: Preprocessing, image_size: int | None) -> Preprocessing:
    """Return preprocessing for another image size, the share that the crop keeps as it was."""
    if image_size is None:
        return preprocessing
    resize_size = max(image_size, round(image_size * preprocessing.resize_size / preprocessing.image_size))
    return replace(preprocessing, image_size=image_size, resize_size=resize_size)


def record_of(
    trained: TrainedModel, program: Program, *, file_format: FileFormat, preprocessing: Preprocessing, source: Path
) -> Record:
    """Return what a file says about itself.

    Args:
        trained: the model.
        program: what is written.
        file_format: of the file.
        preprocessing: of its images.
        source: the run directory or model file.
    """
    return Record(
        file_format=file_format,
        version=version("subfour"),
        network=trained.config.model,
        architecture=asdict(trained.config.architecture),
        classes=trained.data.classes,
        preprocessing=preprocessing,
        weight_bits=trained.weight_bits,
        activation_bits=trained.activation_bits,
        snapped=program.snapped,
        fingerprint=fingerprint(program),
        accuracy=_accuracy(source),
    )


def fingerprint(program: Program) -> str:
    """Return the SHA-256 of all weight codes and the layers' names."""
    digest = hashlib.sha256()
    for operation in program.operations:
        if isinstance(operation, Layer):
            digest.update(operation.name.encode())
            digest.update(operation.codes.detach().cpu().numpy().astype(np.int8).tobytes())
    return digest.hexdigest()


def _accuracy(source: Path) -> dict[str, Any] | None:
    if not source.is_dir():
        return None
    last = RunDirectory.open(source).read_json(RESULT_FILE)["rows"][-1]
    return {"widths": last["widths"], **last["averaged"]}
