"""From a configuration to what a run needs: images, the converted network, an outside teacher."""

import logging
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from subfour import collective
from subfour.convert.equalize import equalize
from subfour.data.images import Split, as_the_model_labels, training_splits
from subfour.data.loader import EvaluationLoader, TrainingLoader
from subfour.data.preprocess import Preprocessing
from subfour.data.sources import load_images
from subfour.data.statistics import data_preprocessing
from subfour.integer.network import trial_program
from subfour.integer.structure import check_structure
from subfour.models.zoo import build_model
from subfour.ops import FLOAT_BITS
from subfour.profit.config import RunConfig
from subfour.profit.continuation import continue_from, data_of
from subfour.profit.conversion import convert_for
from subfour.profit.data_record import DataRecord
from subfour.profit.outside_teacher import outside_teacher
from subfour.profit.phases import build_phases
from subfour.quantizers import check_exportable
from subfour.seeding import derive_seed
from subfour.train.device import choose_device
from subfour.train.distill import Teacher
from subfour.train.precision import Precision

logger = logging.getLogger(__name__)

FEW_STEPS = 8
"""Of an epoch."""

LEAST_SAMPLING_STEPS = 2

USUAL_IMAGE_SIZE = 224
"""For networks without a weights record, in pixels."""


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
    engine: Literal["plain", "folded", "compiled"]
    """How training steps are computed."""
    precision: Precision

    def unreadable_images(self) -> list[str]:
        """Return where the images are that were left out so far, because they cannot be read."""
        loaders = (self.training, self.validation)
        return [loader.split.where(index) for loader in loaders for index in sorted(loader.errors)]


def prepare_session(config: RunConfig, *, begun: DataRecord | None = None) -> Session:
    """Read the data, build and convert the network.

    Args:
        config: of the run.
        begun: what a run that has a checkpoint knows of its data. Neither its starting weights nor the run that it continues are
            read again: all they gave is in the checkpoint.

    Raises:
        ValueError: data, weights, teacher, device or engine do not fit; the message names the option.
    """
    device = choose_device(config.device)
    precision = Precision(config.parallel.precision, device)
    engine = _chosen_engine(config, device)
    known = data_of(config.from_run) if begun is None and config.from_run is not None else begun
    images = load_images(config.data)
    classes = images.classes if known is None else known.classes
    training_images, validation_images = (
        as_the_model_labels(split, images.classes, classes, config.data) for split in training_splits(images)
    )
    torch.manual_seed(derive_seed(config.seed, "weights"))
    weights = config.weights if begun is None else "none"
    float_model = build_model(config.model, num_classes=len(classes), weights=weights, architecture=config.architecture)
    if known is None:
        preprocessing = _preprocessing(config, training_images, float_model.preprocessing)
    else:
        preprocessing = known.preprocessing.resized(config.loading.image_size)
    data = begun or DataRecord(classes=classes, preprocessing=preprocessing)
    loading, batch_size = config.loading, config.schedule.batch_size
    training = TrainingLoader(
        training_images,
        data.preprocessing,
        batch_size=batch_size,
        augment=loading.augment,
        cutout_side=loading.cutout,
        seed=config.seed,
        workers=loading.workers,
        max_steps=config.schedule.max_steps,
        unreadable=loading.unreadable,
    )
    if config.method != "data-free" and config.schedule.max_steps is None:
        _warn_of_few_steps(training)
        _warn_without_samples(config, training)
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
    if config.from_run is not None and begun is None:
        continue_from(config.from_run, config, model, data.preprocessing)
    else:
        if config.start == "dfq" and begun is None:
            equalize(model)
        convert_for(config, model, data.preprocessing)
    if not config.ends_float:
        _check_integer_form(config, model, data.preprocessing)
    return Session(
        config=config,
        model=model,
        data=data,
        training=training,
        validation=validation,
        outside_teacher=outside_teacher(config, data, device),
        device=device,
        engine=engine,
        precision=precision,
    )


def _chosen_engine(config: RunConfig, device: torch.device) -> Literal["plain", "folded", "compiled"]:
    shared = collective.count() > 1 and config.parallel.sync_batchnorm  # on codes, batch norm knows its own images only
    if config.engine == "auto":
        return "folded" if config.foldable and device.type == "cpu" and not shared else "plain"  # measured on CPUs only
    if config.engine != "plain" and shared:
        raise ValueError(
            f"engine: {config.engine} is not possible with {collective.count()} workers whose batch norm is synchronized; "
            "use plain, or add --parallel.no-sync-batchnorm"
        )
    return config.engine


def _check_shares(batch_size: int, accumulate: int) -> None:
    """Raise unless every worker has an image for each part of a batch."""
    workers = collective.count()
    if batch_size < workers * accumulate:
        raise ValueError(
            f"schedule.batch_size: {batch_size} images are too few for {workers} workers with {accumulate} parts each; "
            "use fewer workers, a smaller --accumulate, or a larger batch"
        )


def _warn_of_few_steps(training: TrainingLoader) -> None:
    """Say so where a batch is so large that an epoch is hardly any training."""
    images = len(training.split)
    smaller = 2 ** max(1, (images // FEW_STEPS).bit_length() - 1)
    if training.steps_per_epoch < FEW_STEPS and smaller < training.batch_size:
        logger.warning(
            "schedule.batch_size: %d training images are %d step(s) of %d an epoch, little to learn from; try %d",
            *(images, training.steps_per_epoch, training.batch_size, smaller),
        )


def _warn_without_samples(config: RunConfig, training: TrainingLoader) -> None:
    """Say so where layers would be frozen by a measure of which there is no sample: the first compares two steps."""
    epochs = [phase.epochs for phase in build_phases(config) if phase.kind == "sample"]
    if config.freezes_layers and epochs and sum(epochs) * training.steps_per_epoch < LEAST_SAMPLING_STEPS:
        logger.warning(
            "schedule.sample_epochs: AIWQ compares a step with the one before, and the sampling phase has one step; layers will "
            "be frozen in the order of their names; use a smaller schedule.batch_size, or more schedule.sample_epochs"
        )


def _preprocessing(config: RunConfig, training_images: Split, record: Preprocessing | None) -> Preprocessing:
    """Take preprocessing from what is known of the weights, else from the data; what is asked for wins."""
    loading = config.loading
    if record is None:
        size = loading.image_size or USUAL_IMAGE_SIZE
        record = data_preprocessing(training_images, image_size=size, unreadable=loading.unreadable)
        if config.weights not in ("none", "pretrained") and None in (loading.mean, loading.std):
            logger.warning(
                "weights: %s does not say how its images were normalised; here they are by their own mean %s and std %s; if it "
                "was trained with others, such as 0.485 0.456 0.406 and 0.229 0.224 0.225, use --loading.mean and --loading.std",
                *(config.weights, record.mean, record.std),
            )
    asked = {name: getattr(loading, name) for name in ("resize_size", "interpolation", "mean", "std")}
    try:
        return replace(record.resized(loading.image_size), **{name: value for name, value in asked.items() if value is not None})
    except ValueError as error:
        raise ValueError(f"loading.{error}") from None


def _check_integer_form(config: RunConfig, model: nn.Module, preprocessing: Preprocessing) -> None:
    """Raise where the network is to be snapped and cannot be; say so where it can be trained, and not exported."""
    weight_bits, activation_bits = config.weight_bits[-1], config.activation_bits[-1]
    try:
        if FLOAT_BITS in (weight_bits, activation_bits):
            raise ValueError(f"W{weight_bits}, A{activation_bits}: it stays float in part")
        check_exportable(config.quantizer)
        program = trial_program(model, preprocessing, weight_bits=weight_bits, activation_bits=activation_bits)
    except ValueError as error:
        if config.snaps:
            raise ValueError(f"snap: {error}; with --no-snap it trains, but cannot be exported") from None
        logger.warning("export: this network trains, but cannot be exported: %s", error)
        return
    if config.snaps:
        try:
            check_structure(program)
        except ValueError as error:
            raise ValueError(f"snap: {error}; or leave snapping out with --no-snap") from None
