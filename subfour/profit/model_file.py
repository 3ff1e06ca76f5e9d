"""The model file of a finished run: one safetensors file that evaluates to exactly what was trained.

Weights of quantized layers are stored as integer codes (int8, or uint8 where no code is negative), everything else in float32.
Reading puts each code at the centre of its bin, which the quantizer maps back to the same code: the loaded model has the
trained model's values, bit for bit. (UNIQ's codes are the numbers of its bins: a table, no arithmetic.) The metadata hold the
resolved configuration, the widths, class names and preprocessing, so the file stands alone.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subfour.convert.calibrate import set_bits
from subfour.convert.policy import LayerRule
from subfour.data.loader import EvaluationLoader
from subfour.data.sources import evaluation_images
from subfour.integer.measure import Snapping
from subfour.integer.network import SnappedNetwork
from subfour.layers import quant_layers
from subfour.models.zoo import build_model
from subfour.profit.config import RunConfig
from subfour.profit.conversion import convert_for
from subfour.profit.data_record import DataRecord
from subfour.profit.state_dict import load_model
from subfour.rundir import RESULT_FILE, RunDirectory
from subfour.tensor_file import pack_tensors, unpack_tensors
from subfour.train.device import choose_device
from subfour.train.evaluation import Accuracy, evaluate

MODEL_FILE = "model.safetensors"
"""Name in a run directory."""

FORMAT = "subfour model 1"

EXPORTED_SUFFIXES = {".onnx", ".npz"}
"""Of files that `subfour export` writes, and this module cannot read."""

LARGEST_EXCESS = 16
"""A file that asks for a network so many times its own size is not built to see what does not fit."""

RECORD = {"format", "weight_bits", "activation_bits", "snapping", "data", "config"}
"""What the metadata hold. Another name there is damage, or of a later version."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model read from a file."""

    model: nn.Module
    """Converted, at its trained widths, in evaluation mode."""
    config: RunConfig
    data: DataRecord
    rules: list[LayerRule]
    """Why each layer is quantized as it is."""
    weight_bits: int
    activation_bits: int
    snapping: Snapping | None
    """What a snapped network was snapped with; None for one that was not."""

    @property
    def network(self) -> nn.Module:
        """Normalised images -> logits, as it was trained: the model, or its snapped program."""
        if self.snapping is None:
            return self.model
        return SnappedNetwork(self.model, self.data.preprocessing, self.snapping).eval()


@torch.no_grad()
def pack_model(
    model: nn.Module,
    config: RunConfig,
    data: DataRecord,
    *,
    weight_bits: int,
    activation_bits: int,
    snapping: dict[str, Any] | None = None,
) -> bytes:
    """Return the file's bytes.

    Args:
        model: converted, with the state to store loaded.
        config: of its run.
        data: class names and preprocessing.
        weight_bits: final width of the weights.
        activation_bits: final width of the activations.
        snapping: of a snapped network, as JSON.
    """
    tensors: dict[str, Tensor] = dict(model.state_dict())
    for name, layer in quant_layers(model).items():
        if layer.weight_quantizer.enabled:
            codes = layer.weight_quantizer.codes(layer.folded_weight())
            dtype = torch.uint8 if layer.weight_quantizer.grid.qmin >= 0 else torch.int8
            tensors[f"{name}.weight"] = codes.to(dtype)
    record = {
        "format": FORMAT,
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "snapping": snapping,
        "data": data.to_json(),
        "config": config.to_json(),
    }
    return pack_tensors(tensors, record)


@torch.no_grad()
def read_model(path: Path) -> TrainedModel:
    """Rebuild a model from its file, or from the run directory that holds it; nothing in the file is executed.

    Raises:
        ValueError: there is no such file, or it is damaged or not a model of this package.
    """
    if path.is_dir():
        run = RunDirectory.open(path).path
        path = run / MODEL_FILE
        if not path.exists() and (run / RESULT_FILE).exists():
            raise ValueError(
                f"model: the run {run} is finished, but has no {MODEL_FILE} any more; bring it back, or name the file"
            )
        if not path.exists():
            raise ValueError(f"model: the run {run} is not finished; finish it with: subfour train --resume {run}")
    if not path.is_file():
        raise ValueError(f"model: there is no file {path}")
    try:
        tensors, record = unpack_tensors(path)
    except ValueError as error:
        if path.suffix in EXPORTED_SUFFIXES:
            raise ValueError(f"model: {path} is an exported file; give the run or the model file that it was made from") from None
        raise ValueError(f"model: {path} is {error}") from None
    if "format" not in record:
        raise ValueError(
            f"model: {path} holds plain weights, no model; give the run directory or its {MODEL_FILE}, or train from the weights "
            f"of a float network with: subfour train RECIPE --weights {path}"
        )
    if record["format"] != FORMAT:
        raise ValueError(f"model: {path} was not written by subfour; its format is {record['format']!r}, not {FORMAT!r}")
    try:
        return _rebuild(tensors, record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"model: {path} does not hold what it should ({error})") from None


def _rebuild(tensors: dict[str, Tensor], record: dict[str, Any]) -> TrainedModel:
    """Return the model that the content of a file describes; whatever is wrong with the content raises something."""
    if unknown := record.keys() - RECORD:
        raise ValueError(f"its metadata have {sorted(unknown)}, which this version does not know")
    config, data = RunConfig.from_json(record["config"]), DataRecord.from_json(record["data"])
    weight_bits, activation_bits = record["weight_bits"], record["activation_bits"]
    network = partial(build_model, config.model, num_classes=len(data.classes), weights="none", architecture=config.architecture)
    with torch.device("meta"):  # a small file may ask for a network larger than the memory
        asked = sum(parameter.numel() for parameter in network().model.parameters())
    held = sum(value.numel() for value in tensors.values())
    if asked > LARGEST_EXCESS * held:
        raise ValueError(f"its network has {asked} parameters, the file holds {held} values")
    model = network().model
    rules = convert_for(config, model, data.preprocessing)
    model = model.to(memory_format=torch.channels_last)
    load_model(model, tensors)
    set_bits(model, weight_bits, activation_bits)
    for layer in quant_layers(model).values():
        if layer.weight_quantizer.enabled:  # its weight still holds codes
            layer.weight.copy_(layer.unfolded(layer.weight_quantizer.bin_centres(layer.weight)))
    snapping = record.get("snapping")
    return TrainedModel(
        model=model.eval(),
        config=config,
        data=data,
        rules=rules,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        snapping=None if snapping is None else Snapping.from_json(snapping),
    )


def evaluate_model(
    trained: TrainedModel,
    source: str,
    *,
    split: str | None = None,
    batch_size: int = 250,
    workers: int | None = None,
    device: str = "auto",
) -> Accuracy:
    """Return the accuracy of a trained model on a source of images; classes are told apart by name, where both have names.

    Args:
        trained: from `read_model`.
        source: digits, folder:PATH, parquet:PATH or hub:NAME.
        split: which one; None: the only one, else validation.
        batch_size: images at once.
        workers: processes that decode images; None: as many as in training.
        device: auto, cpu or cuda.

    Raises:
        ValueError: the data have classes that the model does not know, or cannot be read.
    """
    labelled = evaluation_images(source, trained.data.classes, split)
    loading = trained.config.loading
    loader = EvaluationLoader(
        labelled,
        trained.data.preprocessing,
        batch_size=batch_size,
        workers=loading.workers if workers is None else workers,
        unreadable=loading.unreadable,
    )
    place = choose_device(device)
    return evaluate(trained.network.to(place), loader, place)
