"""Every format, and the export of a trained model in one of them."""

from dataclasses import dataclass
from pathlib import Path

from subfour.analysis.cost import model_bytes
from subfour.export.codes import codes_file
from subfour.export.deployed import deployed_program, measured_snapping, record_of
from subfour.export.portable import PortableWriter
from subfour.export.qdq_file import QdqWriter
from subfour.export.qonnx_file import QonnxWriter
from subfour.export.record import FileFormat, Record
from subfour.export.seal import seal
from subfour.export.writer import Writer
from subfour.integer.bounds import Bound, bounds
from subfour.integer.settle import unclear_channels
from subfour.profit.model_file import TrainedModel
from subfour.quantizers import check_exportable

ONNX_WRITERS: dict[FileFormat, type[Writer]] = {"onnx": PortableWriter, "qonnx": QonnxWriter, "qdq": QdqWriter}


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file not yet written."""

    content: bytes
    record: Record
    constant_bytes: int | None
    """Of the content: packed weights and all other constants. None where they are compressed."""
    cost_bytes: int
    """What the cost model says that weights and constants need."""
    bounds: dict[str, Bound]
    """Of the accumulators and sums of a snapped network; empty for others."""
    unclear_channels: int
    """Of a snapped network, behind h-swish, where executors may differ."""


def export_model(
    trained: TrainedModel,
    source: Path,
    *,
    file_format: FileFormat = "onnx",
    snap: bool | None = None,
    image_size: int | None = None,
    data: str | None = None,
) -> Exported:
    """Return a trained model in a format, checked.

    Args:
        trained: the model.
        source: the run directory or model file that it was read from.
        file_format: of the file.
        snap: whether to snap the constants; None: if the network was trained snapped.
        image_size: of the input, in pixels; None: that of training.
        data: where training images are taken from if snapping has to be measured; None: the data it was trained on.

    Raises:
        ValueError: the network has no such form, or `data` is given and not needed; the message says why.
    """
    if not trained.config.ends_float:
        check_exportable(trained.config.quantizer)
    preprocessing = trained.data.preprocessing.resized(image_size)
    snapping = None if snap is False else trained.snapping
    if (snap and snapping is None) or (snapping is not None and preprocessing != trained.data.preprocessing):
        unreadable = trained.config.loading.unreadable
        source_of_images = trained.config.data if data is None else data
        snapping = measured_snapping(trained.model, preprocessing, source_of_images, unreadable=unreadable)
    elif data is not None:
        why = "a network that is not snapped" if snapping is None else "one that was trained snapped, at this image size,"
        raise ValueError(f"data: {data} would not be read, because {why} needs no images; leave it out")
    if file_format == "codes" and snapping is None:
        raise ValueError(
            "format: codes holds nothing but integers, which a network that is not snapped does not have; use --snap"
        )
    program = deployed_program(trained.model, preprocessing, snapping)
    record = record_of(trained, file_format=file_format, preprocessing=preprocessing, snapping=snapping, source=source)
    constant_bytes = None
    if file_format == "codes":
        content = codes_file(program, record)
    else:
        model = ONNX_WRITERS[file_format](program).write(record)
        content = seal(model.SerializeToString())
        constant_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    return Exported(
        content=content,
        record=record,
        constant_bytes=constant_bytes,
        cost_bytes=model_bytes(trained.model),
        bounds={} if snapping is None else bounds(program, snapping),
        unclear_channels=0 if snapping is None else sum(unclear_channels(program, snapping).values()),
    )
