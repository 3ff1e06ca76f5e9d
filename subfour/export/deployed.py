"""From a trained model to what is written into a file: its program, and the record that goes with it."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subfour.data.decode import BatchDecoder, decode_for_evaluation
from subfour.data.images import TRAINING, Split, Unreadable, evaluation_split
from subfour.data.preprocess import Preprocessing
from subfour.data.sources import load_images
from subfour.export.record import FileFormat, Record
from subfour.integer.build import build_program
from subfour.integer.measure import Snapping
from subfour.integer.network import check_head, measure_snapping, snapped_program
from subfour.integer.program import Program
from subfour.profit.model_file import TrainedModel
from subfour.profit.result import read_result
from subfour.rundir import RunDirectory
from subfour.seeding import derive_seed

MEASURED_IMAGES = 512
"""Training images that snapping is measured on."""

BATCH = 64


@torch.no_grad()
def deployed_program(model: nn.Module, preprocessing: Preprocessing, snapping: Snapping | None) -> Program:
    """Return the program of a trained model, in the constants that files hold.

    Args:
        model: converted, at its trained widths.
        preprocessing: of its images.
        snapping: what to snap it with; None: do not.

    Raises:
        ValueError: the network is still float, or cannot be exported; the message says why.
    """
    if snapping is None:
        program = build_program(model, preprocessing, dtype=torch.float64)
    else:
        program = snapped_program(model, preprocessing, snapping)
    check_head(program)
    return program


@torch.no_grad()
def measured_snapping(model: nn.Module, preprocessing: Preprocessing, source: str, *, unreadable: Unreadable) -> Snapping:
    """Return what to snap a network with, measured on random training images.

    Args:
        model: converted, at its trained widths.
        preprocessing: of its images.
        source: digits, folder:PATH, parquet:PATH or hub:NAME; without a training split, the one it has.
        unreadable: whether an image that cannot be read is an error.
    """
    images = load_images(source)
    split = images.splits.get(TRAINING) or evaluation_split(images)
    generator = torch.Generator().manual_seed(derive_seed("snapping"))
    indices = torch.randperm(len(split), generator=generator)[:MEASURED_IMAGES]
    batches = batches_of(split, preprocessing, indices, BATCH, unreadable=unreadable)
    return measure_snapping(model, preprocessing, (pixels for pixels, _ in batches))


def batches_of(
    split: Split, preprocessing: Preprocessing, indices: Tensor, size: int, *, unreadable: Unreadable = "error"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield uint8 pixels [N, 3, H, W] of some images of a split, by batches, and their indices [N].

    Args:
        split: the images.
        preprocessing: of them.
        indices: which.
        size: of a batch.
        unreadable: whether an image that cannot be read is an error, or is left out.

    Raises:
        ValueError: an image cannot be read, and none may be left out.
    """
    groups = torch.split(indices, size)
    decoder = BatchDecoder(partial(decode_for_evaluation, split, preprocessing), 0, unreadable)
    for group, decoded in zip(groups, decoder.batches((), groups), strict=True):
        if len(decoded.kept):
            yield decoded.pixels, group[decoded.kept]


def record_of(
    trained: TrainedModel,
    *,
    file_format: FileFormat,
    preprocessing: Preprocessing,
    snapping: Snapping | None,
    source: Path,
) -> Record:
    """Return what a file says about itself.

    Args:
        trained: the model.
        file_format: of the file.
        preprocessing: of its images.
        snapping: what it is snapped with.
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
        snapping=None if snapping is None else snapping.to_json(),
        accuracy=_accuracy(trained, source, snapped=snapping is not None)
        if preprocessing == trained.data.preprocessing
        else None,
    )


def _accuracy(trained: TrainedModel, source: Path, *, snapped: bool) -> dict[str, Any] | None:
    """Return what a run reported of this network: at its widths, and snapped or not; None where it reported nothing of it."""
    if not source.is_dir() or (trained.snapping is not None and not snapped):  # the snap phase trained on from that row
        return None
    widths = (trained.weight_bits, trained.activation_bits, snapped)
    for row in reversed(read_result(RunDirectory.open(source))["rows"]):
        if (row["weight_bits"], row["activation_bits"], row.get("snapped", False)) == widths:
            return {"widths": row["widths"], **row["averaged"]}
    return None
