"""The sections of a configuration: what belongs together is one frozen dataclass, and one group of options."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

import tyro

from subfour.data.images import Unreadable
from subfour.data.loader import Augmentation
from subfour.data.preprocess import Interpolation, Preprocessing
from subfour.profit.fields import BitWidth, Share, check_fields
from subfour.train.precision import PrecisionName


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadingConfig:
    """How images are read and augmented."""

    image_size: int | None = None
    """Side of the square the network sees, pixels; None: the weights' own record, else the model's usual size. A run that goes
    on from another keeps its size where no other than the recipe's is named."""
    resize_size: int | None = None
    """Short side of an image before a square is cut from its middle, pixels; None: as the weights' own record has it, else
    nothing but the longer side is cut."""
    interpolation: Interpolation | None = None
    """Filter for resizing; None: that of the weights' own record, else bilinear."""
    mean: tuple[float, ...] | None = None
    """What is taken from red, green and blue in 0..1; None: that of the weights' own record, else of the training images."""
    std: tuple[float, ...] | None = None
    """What they are divided by then; None: likewise."""
    augment: Augmentation = "resized-crop"
    """Training augmentation: padded random crop (with or without flip), ImageNet's random resized crop, or nothing."""
    cutout: int = 0
    """Side of a square that is blank at a random place of each training image, pixels; 0: none."""
    workers: int | None = None
    """Processes that decode images; None: one per core, at most 8."""
    unreadable: Unreadable = "error"
    """An image that cannot be read ends the run, or is left out, named, and counted in result.json (skip)."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "loading.", positive={"image_size", "resize_size"}, not_negative={"cutout", "workers"})
        try:
            Preprocessing(
                image_size=1,
                resize_size=1,
                interpolation="bilinear",
                mean=(0.0, 0.0, 0.0) if self.mean is None else self.mean,
                std=(1.0, 1.0, 1.0) if self.std is None else self.std,
            )
        except ValueError as error:
            raise ValueError(f"loading.{error}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Epochs, learning rates and the optimizer (SGD with Nesterov momentum)."""

    batch_size: int = 256
    """Images per step."""
    float_epochs: int = 15
    """Epochs of the float phase: fine-tuning, or training from scratch."""
    float_sizes: tuple[Share, ...] = ()
    """Sides of the images in the float phase, as shares of the image size that end with 1, each for an equal part of its epochs,
    of which the last always has 1: smaller images first take less time (progressive resizing). Empty: 1 throughout."""
    finetune_epochs: int = 15
    """Epochs of each finetune phase."""
    stabilize_epochs: int = 5
    """Epochs of each stabilize phase."""
    sample_epochs: int = 5
    """Epochs of the AIWQ sampling phase."""
    snap_epochs: int = 1
    """Epochs of the snap phase, where there is one."""
    float_lr: float | None = None
    """Base learning rate of the float phase; None: `lr`."""
    lr: float = 0.04
    """Base learning rate of every other phase."""
    snap_lr: float = 0.001
    """Base learning rate of the snap phase, where batch norm no longer normalises and the rates of other phases diverge."""
    range_lr_scale: float = 0.01
    """Learning rate of range parameters over that of weights."""
    momentum: float = 0.9
    """Nesterov momentum."""
    weight_decay: float = 4e-5
    """L2 penalty of convolution and linear weights; batch norm, biases and ranges other than PACT's clip have none."""
    warmup_epochs: float = 3.0
    """Linear warm-up from a tenth of the rate, in float and finetune phases."""
    final_lr_scale: float = 0.001
    """The cosine of each phase ends at this share of the base rate."""
    update: Literal["epoch", "step"] = "epoch"
    """How often the rate changes."""
    max_steps: int | None = None
    """Stop each epoch after this many steps; None: the whole epoch."""
    evaluations: int = 1
    """Validation losses per epoch in the phases after sampling, at equal distances; 1: at the end of the epoch only."""

    def __post_init__(self) -> None:
        """Check every field."""
        epochs = {"float_epochs", "finetune_epochs", "stabilize_epochs", "sample_epochs", "snap_epochs", "warmup_epochs"}
        check_fields(
            self,
            "schedule.",
            positive={"batch_size", "lr", "float_lr", "snap_lr", "final_lr_scale", "max_steps", "evaluations"},
            not_negative=epochs | {"weight_decay", "range_lr_scale"},
            share={"momentum"},
        )
        sizes = self.float_sizes
        if sizes and (sizes[-1] != 1 or any(not 0 < size <= 1 for size in sizes)):
            shown = " ".join(map(str, sizes))
            raise ValueError(
                f"schedule.float_sizes: {shown} must lie between 0 and 1, shares of the image size, and end with 1, such as 3/4 1"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfitConfig:
    """Progressive freezing by AIWQ."""

    fractions: tuple[Share, ...] = (Fraction(1, 3), Fraction(2, 3))
    """Shares of the sampled layers frozen in the stages after the first, the most unstable first."""
    at_bits: BitWidth | None = None
    """Weight width at which layers are sampled and frozen; None: the last one."""
    covers: Literal["weights", "weights+ranges", "weights+ranges+batchnorm"] = "weights"
    """What freezing a layer stops: its convolution weight (authors), its ranges too, or also scale and shift behind it."""
    decay: float = 0.999
    """Decay of the running mean of AIWQ."""
    corrected: bool = True
    """Divide the running mean by its weight so far; False: the authors' mean, which starts at 0."""
    sample_stride: int = 1
    """AIWQ samples are taken over one image in so many of a batch; 1: all (authors)."""

    def __post_init__(self) -> None:
        """Check every field; `RunConfig` checks `at_bits`."""
        check_fields(self, "profit.", share={"decay"}, positive={"sample_stride"})
        if not self.fractions:
            raise ValueError("profit.fractions: none is named, so that nothing would be frozen; name some, or use --method none")
        if any(not 0 < share < 1 for share in self.fractions) or list(self.fractions) != sorted(set(self.fractions)):
            shown = " ".join(map(str, self.fractions))
            raise ValueError(f"profit.fractions: {shown} must rise and lie between 0 and 1, such as 1/3 2/3")


@dataclass(frozen=True, kw_only=True, slots=True)
class OscillationConfig:
    """The methods against oscillating weights: dampening and iterative freezing."""

    dampening: float = 0.1
    """Weight of the dampening penalty at the end; it rises from 0."""
    threshold_start: float = 0.1
    """Frequency of oscillation above which iterative freezing freezes a weight, at first."""
    threshold_end: float = 0.011
    """The same, at the end."""
    momentum: float = 0.001
    """Share of the present step in the running frequency and the running mean of a weight's code."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "oscillation.", not_negative={"dampening"}, share={"threshold_start", "threshold_end", "momentum"})


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """Loss = cross entropy with the labels + `weight` * cross entropy with the teacher's softmax."""

    weight: float = 1.0
    """Weight of the teacher's term."""
    temperature: float = 1.0
    """Both softmaxes are taken at this temperature; the term is scaled by its square."""
    teacher_mode: Literal["eval", "train"] = "eval"
    """Mode of the teacher's batch norm; the authors' moves its statistics (train)."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "distill.", positive={"temperature"}, not_negative={"weight"})


@dataclass(frozen=True, kw_only=True, slots=True)
class AverageConfig:
    """Exponential moving average of the whole model state."""

    decay: float | None = 0.9997
    """Decay per step; None: 1 - 1.5 / (steps per epoch), which is 0.9997 at ImageNet's 5,004."""
    restart: bool = True
    """Start again from the raw weights whenever a width changes (the authors do not)."""
    reestimate_batches: int = 100
    """Training batches from which batch-norm statistics are computed anew before the last evaluation; 0: not at all."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "average.", not_negative={"reestimate_batches"}, share={"decay"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """How a step is computed: in which precision, in how many parts, and what workers share beside gradients."""

    precision: Annotated[PrecisionName, tyro.conf.arg(prefix_name=False)] = "fp32"
    """Of convolutions and products while training; the rest, the snap phase and every evaluation are fp32. fp16 needs a GPU."""
    accumulate: Annotated[int, tyro.conf.arg(prefix_name=False)] = 1
    """Parts of a batch that follow one another, to save memory; batch norm sees one part, the batch size stays what it is."""
    sync_batchnorm: bool = True
    """Batch norm sees the images of all workers, as it does with one; without, each worker's own."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "", positive={"accumulate"})
