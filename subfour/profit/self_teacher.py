"""The network as its own teacher: what it was in float, before its first quantized phase."""

import copy
from pathlib import Path

from torch import nn

from subfour.convert.calibrate import set_bits
from subfour.data.preprocess import Preprocessing
from subfour.models.weights import float_file
from subfour.ops import FLOAT_BITS
from subfour.profit.config import RunConfig
from subfour.profit.continuation import TEACHER_FILE, config_of
from subfour.profit.state_dict import load_model, read_tensors, without_quantizers
from subfour.train.average import WeightAverage
from subfour.train.distill import Teacher


def float_network(config: RunConfig, average: WeightAverage, preprocessing: Preprocessing) -> bytes:
    """Return the network that teaches itself, as a file: that of the quantized run this one continues, or the average."""
    if config.from_run is not None and not config_of(config.from_run).ends_float:
        return (Path(config.from_run) / TEACHER_FILE).read_bytes()
    return float_file(without_quantizers(average.state), preprocessing)


def self_teacher(model: nn.Module, config: RunConfig, file: Path) -> Teacher:
    """Return the teacher: a twin of the network in float, with the weights of `file`.

    Args:
        model: the network in training; left as it is.
        config: of the run.
        file: from `float_network`.
    """
    twin = copy.deepcopy(model)
    set_bits(twin, FLOAT_BITS, FLOAT_BITS)
    tensors = twin.state_dict()
    quantizers = {name: tensors[name] for name in tensors.keys() - without_quantizers(tensors).keys()}
    load_model(twin, quantizers | read_tensors(file))
    return Teacher(twin, mode=config.distill.teacher_mode)
