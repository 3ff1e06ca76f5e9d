"""What is costed: a network by name, a run, or a model file, each as a workload and the widths it has."""

from dataclasses import dataclass
from pathlib import Path

from subfour.analysis.stock import IMAGENET_PIXELS, stock_workload
from subfour.analysis.workload import Workload, measure_workload
from subfour.profit.config import RunConfig, config_in
from subfour.profit.data_record import DataRecord, data_in
from subfour.profit.model_file import read_model
from subfour.rundir import RunDirectory

USUAL_BITS = 4
"""Of a network by name, of which nobody says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A network, and the widths that it has or that are usual."""

    workload: Workload
    weight_bits: int
    activation_bits: int


def read_subject(model: str, resolution: int | None = None) -> Subject:
    """Return what a network computes, wherever it comes from.

    Args:
        model: name of a network (models/zoo.py), a run directory or a model file.
        resolution: side of the image, pixels; None: the run's or the file's own, 224 for a network by name.

    Raises:
        ValueError: there is no such network, run or file, or the image is too small.
    """
    path = Path(model)
    if not path.exists():
        workload = stock_workload(model, resolution or IMAGENET_PIXELS)
        return Subject(workload=workload, weight_bits=USUAL_BITS, activation_bits=USUAL_BITS)
    if path.is_dir():
        run = RunDirectory.open(path)
        config, data = config_in(run), data_in(run)
        return Subject(
            workload=run_workload(config, data, resolution),
            weight_bits=config.weight_bits[-1],
            activation_bits=config.activation_bits[-1],
        )
    trained = read_model(path)
    return Subject(
        workload=measure_workload(trained.model, resolution or trained.data.preprocessing.image_size),
        weight_bits=trained.weight_bits,
        activation_bits=trained.activation_bits,
    )


def run_workload(config: RunConfig, data: DataRecord, resolution: int | None = None) -> Workload:
    """Return what a run's network computes on one image, of its own size unless another is asked for."""
    return stock_workload(
        config.model,
        resolution or data.preprocessing.image_size,
        num_classes=len(data.classes),
        architecture=config.architecture,
    )
