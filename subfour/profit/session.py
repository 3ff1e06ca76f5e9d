"""From a configuration to what a run needs: images, the converted network, an outside teacher."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from subfour import collective
from subfour.convert.equalize import equalize, replace_relu6
from subfour.convert.policy import LayerRule, make_policy
from subfour.convert.rewrite import convert
from subfour.data.images import Split, as_the_model_labels, training_splits
from subfour.data.loader import EvaluationLoader, TrainingLoader
from subfour.data.preprocess import Preprocessing
from subfour.data.sources import load_images
from subfour.data.statistics import data_preprocessing
from subfour.integer.network import check_snappable
from subfour.models.zoo import build_model
from subfour.ops import FLOAT_BITS
from subfour.profit.config import RunConfig
from subfour.profit.phases import build_phases
from subfour.profit.state import load_model, read_tensors, without_quantizers
from subfour.rundir import RunDirectory
from subfour.seeding import derive_seed
from subfour.train.distill import Teacher, renormalization
from subfour.train.precision import Precision

logger = logging.getLogger(__name__)

DATA_FILE = "data.json"
"""Class names and preprocessing of a run."""

WEIGHTS_FILE = "weights.safetensors"
"""Final averaged state of a run, in float: what a run continued from it starts with."""

TEACHER_FILE = "teacher.safetensors"
"""The float network at the end of its phase, when it teaches itself."""

FEW_STEPS = 8
"""Of an epoch."""

USUAL_IMAGE_SIZE = 224
"""For networks without a weights record, in pixels."""


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What a model must know of the data it was trained on."""

    classes: tuple[str, ...]
    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "DataRecord":
        """Rebuild a record."""
        fields = dict(data["preprocessing"])
        fields["mean"], fields["std"] = tuple(fields["mean"]), tuple(fields["std"])
        return cls(classes=tuple(data["classes"]), preprocessing=Preprocessing(**fields))


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a run trains, and on what."""

    config: RunConfig
    model: nn.Module
    """Converted, on `device`."""
    data: DataRecord
    training: TrainingLoader
    validation: EvaluationLoader
    outside_teacher: Teacher | None
    """A teacher that is not the network itself."""
    device: torch.device
    precision: Precision

    def unreadable_images(self) -> list[str]:
        """Return where the images are that were left out so far, because they cannot be read."""
        loaders = (self.training, self.validation)
        return [loader.split.where(index) for loader in loaders for index in sorted(loader.errors)]


def prepare_session(config: RunConfig) -> Session:
    """Read the data, build and convert the network.

    Raises:
        ValueError: data, weights, teacher or device do not fit; the message names the option.
    """
    device = choose_device(config.device)
    precision = Precision(config.parallel.precision, device)
    earlier = None if config.from_run is None else _data_of(config.from_run)
    images = load_images(config.data)
    classes = images.classes if earlier is None else earlier.classes
    training_images, validation_images = (
        as_the_model_labels(split, images.classes, classes, config.data) for split in training_splits(images)
    )
    torch.manual_seed(derive_seed(config.seed, "weights"))
    float_model = build_model(config.model, num_classes=len(classes), weights=config.weights, architecture=config.architecture)
    known = float_model.preprocessing if earlier is None else earlier.preprocessing
    data = DataRecord(classes=classes, preprocessing=_preprocessing(config, training_images, known))
    loading, batch_size = config.loading, config.schedule.batch_size
    training = TrainingLoader(
        training_images,
        data.preprocessing,
        batch_size=batch_size,
        augment=loading.augment,
        seed=config.seed,
        workers=loading.workers,
        max_steps=config.schedule.max_steps,
        unreadable=loading.unreadable,
    )
    if config.method != "data-free" and config.schedule.max_steps is None:
        _warn_of_few_steps(training)
    validation = EvaluationLoader(
        validation_images,
        data.preprocessing,
        batch_size=batch_size,
        workers=loading.workers,
        unreadable=loading.unreadable,
        share=(collective.rank(), collective.count()),
    )
    _check_shares(training.batch_size, config.parallel.accumulate)
    model = float_model.model.to(memory_format=torch.channels_last).to(device)
    if config.from_run is None:
        if config.start == "dfq":
            equalize(model)
        convert_for(config, model, data.preprocessing)
    else:
        _continue_from(config.from_run, config, model, data.preprocessing)
    if any(phase.kind == "snap" for phase in build_phases(config)):
        _check_snappable(model, data.preprocessing)
    return Session(
        config=config,
        model=model,
        data=data,
        training=training,
        validation=validation,
        outside_teacher=_outside_teacher(config, data, device),
        device=device,
        precision=precision,
    )


def _check_shares(batch_size: int, accumulate: int) -> None:
    """Raise unless every worker has an image for each part of a batch."""
    workers = collective.count()
    if batch_size < workers * accumulate:
        raise ValueError(
            f"schedule.batch_size: {batch_size} images are too few for {workers} workers with {accumulate} parts each; "
            "use fewer workers, a smaller --accumulate, or a larger batch"
        )


def convert_for(config: RunConfig, model: nn.Module, preprocessing: Preprocessing) -> list[LayerRule]:
    """Convert a float network in place as a configuration asks, and return why each layer is quantized as it is."""
    if config.start == "dfq":
        replace_relu6(model)
    return convert(
        model,
        quantizer=config.quantizer,
        padding=config.padding,
        weight_granularity=config.weight_granularity,
        batchnorm=config.batchnorm,
        skip_bits=config.skip_bits,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )


def choose_device(name: str) -> torch.device:
    """Return a device by name; `auto` is cuda where there is one.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("mps"):
        raise ValueError(f"device: {name} has no float64, in which accuracy and AIWQ are computed; use auto or cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device: {name!r} is not possible; use auto, cpu or cuda")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {name!r} is not available here ({error}); use auto or cpu") from None
    return device


def continued(config: RunConfig, from_run: str) -> RunConfig:
    """Return the configuration of a run that goes on from another one's final weights.

    Raises:
        ValueError: the earlier run is not finished, is of another network, or has no float network left to teach.
    """
    earlier = _config_of(from_run)
    if not (Path(from_run) / WEIGHTS_FILE).exists():
        raise ValueError(f"from: {from_run} is not finished; finish it with: subfour train --resume {from_run}")
    was_float = _ended_float(earlier)
    quantization: tuple[str, ...] = () if was_float else ("quantizer", "weight_granularity", "batchnorm", "skip_bits")
    if earlier.start == "dfq" or not was_float:
        quantization = (*quantization, "start")
    for name in ("model", "architecture", "padding", *quantization):
        if getattr(earlier, name) != getattr(config, name):
            raise ValueError(f"{name}: {getattr(config, name)} differs from {getattr(earlier, name)} in {from_run}; use the same")
    example = f"--weight-bits {min(3, earlier.weight_bits[-1])} --activation-bits {min(3, earlier.activation_bits[-1])}"
    for name in ("weight_bits", "activation_bits"):
        reached, asked = getattr(earlier, name)[-1], getattr(config, name)[0]
        if asked > reached:
            raise ValueError(
                f"{name}: {asked} is wider than the {reached} bits that {from_run} ended with; "
                f"name narrower ones, such as {example}"
            )
    if config.teacher == "self" and not was_float and not (Path(from_run) / TEACHER_FILE).exists():
        raise ValueError(f"teacher: self is the float network, which {from_run} did not keep; use none, or another network")
    return replace(config, from_run=from_run, starting_weight_bits=earlier.weight_bits[-1], weights="none")


def _continue_from(run: str, config: RunConfig, model: nn.Module, preprocessing: Preprocessing) -> None:
    """Convert a network and load the final weights of the run that it continues.

    Raises:
        ValueError: a float run padded its h-swish outputs with another value than the quantizers now asked for.
    """
    earlier, start = _config_of(run), read_tensors(Path(run) / WEIGHTS_FILE)
    pads = [rule.pad_value for rule in make_policy(model, quantizer=earlier.quantizer, padding=earlier.padding)]
    if _ended_float(earlier):  # it never used its quantizers, which may be others
        load_model(model, without_quantizers(start))
        if config.start != earlier.start:
            equalize(model)
    if pads != [rule.pad_value for rule in convert_for(config, model, preprocessing)]:
        raise ValueError(
            f"quantizer: {config.quantizer} pads h-swish outputs in another way than {earlier.quantizer}, with which {run} "
            "trained its float network; continue one of the same padding, or use --padding zero for both"
        )
    if not _ended_float(earlier):
        load_model(model, start)


def _config_of(run: str) -> RunConfig:
    return RunConfig.from_json(_opened(run).read_json("config.json"))


def _data_of(run: str) -> DataRecord:
    return DataRecord.from_json(_opened(run).read_json(DATA_FILE))


def _opened(run: str) -> RunDirectory:
    """Return the run that another one continues; a relative path is one from the present folder, when resumed too."""
    try:
        return RunDirectory.open(Path(run))
    except ValueError as error:
        raise ValueError(f"from: {error}; seen from {Path.cwd()}") from None


def _ended_float(config: RunConfig) -> bool:
    return config.weight_bits[-1] == config.activation_bits[-1] == FLOAT_BITS


def _warn_of_few_steps(training: TrainingLoader) -> None:
    """Say so where a batch is so large that an epoch is hardly any training."""
    images = len(training.split)
    smaller = 2 ** max(1, (images // FEW_STEPS).bit_length() - 1)
    if training.steps_per_epoch < FEW_STEPS and smaller < training.batch_size:
        logger.warning(
            "schedule.batch_size: %d training images are %d step(s) of %d an epoch, little to learn from; try %d",
            *(images, training.steps_per_epoch, training.batch_size, smaller),
        )


def _preprocessing(config: RunConfig, training_images: Split, record: Preprocessing | None) -> Preprocessing:
    """Take preprocessing from what is known of the weights, else from the data; a size asked for wins."""
    size = config.loading.image_size
    if record is None:
        return data_preprocessing(training_images, image_size=size or USUAL_IMAGE_SIZE, unreadable=config.loading.unreadable)
    if size is None or size == record.image_size:
        return record
    return replace(record, image_size=size, resize_size=max(size, round(size * record.resize_size / record.image_size)))


def _check_snappable(model: nn.Module, preprocessing: Preprocessing) -> None:
    try:
        check_snappable(model, preprocessing)
    except ValueError as error:
        raise ValueError(f"snap: {error}; or leave snapping out with --no-snap") from None


def _outside_teacher(config: RunConfig, data: DataRecord, device: torch.device) -> Teacher | None:
    if config.teacher in ("self", "none"):
        return None
    try:
        built = build_model(config.teacher, num_classes=len(data.classes), weights=config.teacher_weights, rehead=False)
    except ValueError as error:
        raise ValueError(f"teacher: {error}") from None
    network = built.model.to(memory_format=torch.channels_last).to(device)
    own = data.preprocessing
    theirs = built.preprocessing or own
    return Teacher(
        network,
        mode=config.distill.teacher_mode,
        renormalize=renormalization(own.mean, own.std, theirs.mean, theirs.std),
    )
