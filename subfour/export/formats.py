"""Every format that is an ONNX file, and the export of a trained model in one of them."""

from pathlib import Path

import onnx

from subfour.analysis.cost import model_bytes
from subfour.export.deployed import deployed_program, measured_snapping, record_of, resized
from subfour.export.portable import PortableWriter
from subfour.export.qonnx_file import QonnxWriter
from subfour.export.record import FileFormat
from subfour.export.writer import Writer
from subfour.profit.model_file import TrainedModel

WRITERS: dict[FileFormat, type[Writer]] = {"onnx": PortableWriter, "qonnx": QonnxWriter}


def export_model(
    trained: TrainedModel,
    source: Path,
    *,
    file_format: FileFormat = "onnx",
    snap: bool | None = None,
    image_size: int | None = None,
    data: str | None = None,
) -> onnx.ModelProto:
    """Return a trained model in a format, checked.

    Args:
        trained: the model.
        source: the run directory or model file that it was read from.
        file_format: of the file.
        snap: whether to snap the constants; None: if the network was trained snapped.
        image_size: of the input, in pixels; None: that of training.
        data: where training images are taken from if snapping has to be measured; None: the data it was trained on.

    Raises:
        ValueError: the network has no such form; the message says why.
    """
    preprocessing = resized(trained.data.preprocessing, image_size)
    snapping = trained.snapping
    if snap is False:
        snapping = None
    elif (snap and snapping is None) or (snapping is not None and preprocessing != trained.data.preprocessing):
        snapping = measured_snapping(trained.model, preprocessing, data or trained.config.data)
    program = deployed_program(trained.model, preprocessing, snapping)
    record = record_of(trained, file_format=file_format, preprocessing=preprocessing, snapping=snapping, source=source)
    return WRITERS[file_format](program).write(record)


def file_sizes(model: onnx.ModelProto, trained: TrainedModel) -> dict[str, int]:
    """Return the bytes of a file and of its parts, and what the cost model says that weights and constants need."""
    tensors = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    weights = sum(size for name, size in tensors.items() if name.endswith(".weight"))
    total, constants = model.ByteSize(), sum(tensors.values()) - weights
    return {
        "file": total,
        "weights": weights,
        "constants": constants,
        "graph": total - weights - constants,
        "cost_model": model_bytes(trained.model),
    }
