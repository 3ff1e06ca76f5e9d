"""The configuration of a run: one frozen, typed value that decides everything, and that a recipe returns.

Where the paper, the authors' code and this package differ, the difference is a field here. Defaults are the paper's ImageNet
values; recipes change them. Every field is an option of `subfour train`.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import tyro

from subfour.convert.policy import Padding
from subfour.convert.rewrite import BatchNorm
from subfour.data.images import Unreadable
from subfour.data.loader import Augmentation
from subfour.models.zoo import Architecture
from subfour.ops import FLOAT_BITS, check_bits
from subfour.quantizers import Granularity, QuantizerName, check_granularity
from subfour.train.precision import PrecisionName

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BitWidth = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="2..8|32",
        instance_from_str=lambda words: int(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A width in bits: 2..8, or 32 for float. Whoever takes one checks it, with the option's name in the message."""

Share = Annotated[
    Fraction,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FRACTION",
        instance_from_str=lambda words: _parse_fraction(words[0]),
        is_instance=lambda value: isinstance(value, Fraction),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A share between 0 and 1, such as 1/3."""


def _parse_fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a fraction; write it like 1/3 or 0.5") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadingConfig:
    """How images are read and augmented."""

    image_size: int | None = None
    """Side of the square the network sees, pixels; None: the weights' own record, else the model's usual size."""
    augment: Augmentation = "resized-crop"
    """Training augmentation: padded random crop (with or without flip), ImageNet's random resized crop, or nothing."""
    workers: int | None = None
    """Processes that decode images when they are not kept in memory; None: one per core, at most 8."""
    unreadable: Unreadable = "error"
    """An image that cannot be read ends the run, or is left out, named, and counted in result.json (skip)."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check(self, "loading.", positive={"image_size"}, not_negative={"workers"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Epochs, learning rates and the optimizer (SGD with Nesterov momentum)."""

    batch_size: int = 256
    """Images per step."""
    float_epochs: int = 15
    """Epochs of the float phase: fine-tuning, or training from scratch."""
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
    """L2 penalty of convolution and linear weights; batch norm, biases and ranges have none."""
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
        _check(
            self,
            "schedule.",
            positive={"batch_size", "lr", "float_lr", "snap_lr", "final_lr_scale", "max_steps", "evaluations"},
            not_negative=epochs | {"weight_decay", "range_lr_scale"},
            share={"momentum"},
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
    sample_every: int = 1
    """Steps from one AIWQ sample to the next; fewer where a phase would have less than 50. `decay` is that of one step."""

    def __post_init__(self) -> None:
        """Check every field; `RunConfig` checks `at_bits`."""
        _check(self, "profit.", share={"decay"}, positive={"sample_every"})
        if any(not 0 < share < 1 for share in self.fractions) or list(self.fractions) != sorted(set(self.fractions)):
            shown = " ".join(map(str, self.fractions))
            raise ValueError(f"profit.fractions: {shown} must rise and lie between 0 and 1, such as 1/3 2/3")


@dataclass(frozen=True, kw_only=True, slots=True)
class OscillationConfig:
    """The methods against oscillating weights: dampening and iterative freezing."""

    dampening: float = 0.01
    """Weight of the dampening penalty at the end; it rises from 0."""
    threshold_start: float = 0.04
    """Frequency of oscillation above which iterative freezing freezes a weight, at first."""
    threshold_end: float = 0.01
    """The same, at the end."""
    momentum: float = 0.01
    """Share of the present step in the running frequency and the running mean of a weight's code."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check(self, "oscillation.", not_negative={"dampening"}, share={"threshold_start", "threshold_end", "momentum"})


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
        _check(self, "distill.", positive={"temperature"}, not_negative={"weight"})


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
        _check(self, "average.", not_negative={"reestimate_batches"}, share={"decay"})


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
        _check(self, "", positive={"accumulate"})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that decides a run."""

    recipe: Annotated[str, tyro.conf.Suppress] = "custom"
    """Name of the recipe this started from."""
    model: str = "torchvision/mobilenet_v2"
    """Network: torchvision/NAME, timm/NAME or subfour/NAME."""
    weights: str = "pretrained"
    """Starting weights: pretrained, none, or a .safetensors or .pth file."""
    start: Literal["none", "dfq"] = "none"
    """Equalize the weight ranges of the float network across layers first, as DFQ does; ReLU6 becomes ReLU."""
    data: str = "folder:imagenet"
    """Images: digits, folder:PATH, parquet:PATH or hub:NAME."""
    weight_bits: tuple[BitWidth, ...] = (8, 5, 4)
    """Widths of the weights, one block of phases each; 32 is float."""
    activation_bits: tuple[BitWidth, ...] = (8, 5, 4)
    """Widths of the activations, one block of phases each; 32 is float."""
    quantizer: QuantizerName = "duq"
    """Which paper's quantizers."""
    weight_granularity: Granularity = "layer"
    """Weight ranges per layer, or per output channel (duq, lsq, lsq-plus)."""
    batchnorm: BatchNorm = "unfused"
    """Whether weights are quantized with the gain of the batch norm behind them; fused statistics are not computed anew."""
    skip_bits: BitWidth = FLOAT_BITS
    """Width of what skip paths carry, wider while the activations are; 32 is the precision highway."""
    method: Literal["profit", "none", "dampening", "iterative-freezing", "random-order", "reversed-order", "data-free"] = "profit"
    """Progressive freezing; the same phases with nothing frozen, alone or against oscillations; freezing in another order; or no
    training and no data at all."""
    padding: Padding = "negative"
    """What convolutions fed by h-swish are padded with: -3/8, or 0."""
    snap: bool = False
    """End with a snap phase: constants on grids where every integer executor gives the same codes. Float networks have none."""
    refit_below_bits: int = 4
    """A new weight width below this sets the weight ranges anew; 0: never, they stay those of the width before (authors)."""
    teacher: str = "self"
    """Teacher network: self (the float network at the end of its phase), none, or torchvision/NAME or timm/NAME, pretrained."""
    teacher_weights: str = "pretrained"
    """The teacher's weights, unless it is self: pretrained, or a file."""
    keep_phases: bool = False
    """Run the phases of 32-bit widths too: a float control with the epochs of a quantized run."""
    from_run: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Continue from the final weights of this run directory, at other widths."""
    starting_weight_bits: Annotated[BitWidth, tyro.conf.Suppress] = FLOAT_BITS
    """Weight width of the run that this one continues."""
    engine: Literal["auto", "plain", "folded", "compiled"] = "auto"
    """How training steps are computed: as the quantizers say (plain), on codes (folded), the faster of these two (auto), or
    on codes with kernels that are compiled here (compiled)."""
    seed: int = 0
    """Decides every random choice."""
    device: str = "auto"
    """auto (cuda if there is one), cpu, cuda, mps."""
    calibration_batches: int = 8
    """Training batches that set the activation ranges."""
    architecture: Architecture = field(default_factory=Architecture)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    profit: ProfitConfig = field(default_factory=ProfitConfig)
    oscillation: OscillationConfig = field(default_factory=OscillationConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        """Check every field of its own, and what no part can check alone."""
        _check(self, "", positive={"calibration_batches"}, not_negative={"refit_below_bits"})
        for name, widths in (("weight_bits", self.weight_bits), ("activation_bits", self.activation_bits)):
            if not widths:
                raise ValueError(f"{name}: no width given; name at least one, such as 4, or 32 for float")
            for bits in widths:
                check_bits(bits, name)
            distinct = len(set(widths)) == len(widths) or self.keep_phases
            if list(widths) != sorted(widths, reverse=True) or not distinct:
                raise ValueError(f"{name}: {' '.join(map(str, widths))} must fall from one width to the next, such as 8 5 4")
        if self.batchnorm == "fused" and self.method in ("dampening", "iterative-freezing"):
            raise ValueError(
                f"batchnorm: fused is not possible with --method {self.method}, which moves single weights; use unfused"
            )
        check_bits(self.skip_bits, "skip_bits")
        if self.engine in ("folded", "compiled") and not self.foldable:
            raise ValueError(
                f"engine: {self.engine} is possible with --quantizer duq, --batchnorm unfused and --skip-bits 32 only; use auto"
            )
        check_granularity(self.quantizer, self.weight_granularity)
        if self.profit.at_bits is not None and self.profit.at_bits not in self.weight_bits:
            widths_shown = " ".join(map(str, self.weight_bits))
            raise ValueError(f"profit.at_bits: {self.profit.at_bits} is not among weight_bits ({widths_shown})")

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a weight: what a checkpoint remembers."""
        values = self.to_json()
        del values["engine"], values["schedule"]["evaluations"]  # engines compute the same; looking more often changes nothing
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def foldable(self) -> bool:
        """Whether training steps can be computed on codes."""
        return self.quantizer == "duq" and self.batchnorm == "unfused" and self.skip_bits == FLOAT_BITS

    @property
    def freezes_layers(self) -> bool:
        """Whether whole layers are frozen step by step, in whatever order."""
        return self.method in ("profit", "random-order", "reversed-order")

    @property
    def profit_bits(self) -> int:
        """Weight width at which PROFIT acts."""
        return self.weight_bits[-1] if self.profit.at_bits is None else self.profit.at_bits

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` reads them back."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunConfig":
        """Rebuild a configuration from `to_json`.

        Raises:
            ValueError: a field is unknown or has a value that is not allowed.
        """
        values = dict(data)
        if values:  # written before there were methods against oscillations, or several workers
            values.setdefault("oscillation", dataclasses.asdict(OscillationConfig()))
            values.setdefault("engine", "plain")  # before there were engines
            values.setdefault("parallel", dataclasses.asdict(ParallelConfig()))
        parts = {
            "architecture": Architecture,
            "loading": LoadingConfig,
            "schedule": ScheduleConfig,
            "profit": ProfitConfig,
            "oscillation": OscillationConfig,
            "distill": DistillConfig,
            "average": AverageConfig,
            "parallel": ParallelConfig,
        }
        try:
            for name, part in parts.items():
                fields = {key: tuple(value) if isinstance(value, list) else value for key, value in values[name].items()}
                if name == "profit":
                    fields["fractions"] = tuple(_parse_fraction(share) for share in fields["fractions"])
                    fields.setdefault("sample_every", 1)  # written before it could be chosen
                values[name] = part(**fields)
            for name in ("weight_bits", "activation_bits"):
                values[name] = tuple(values[name])
            return cls(**values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"config: not a configuration of this version of subfour ({error})") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Fraction) else value


def _check(
    part: "DataclassInstance",
    section: str,
    *,
    positive: Collection[str] = (),
    not_negative: Collection[str] = (),
    share: Collection[str] = (),
) -> None:
    """Raise unless the named fields are finite numbers in their range, or None, and every choice is a known one.

    The command line knows the choices too, but a configuration also comes from Python and from JSON.
    """
    for entry in dataclasses.fields(part):
        name, value = section + entry.name, getattr(part, entry.name)
        kind = get_args(entry.type)[0] if get_origin(entry.type) is Annotated else entry.type
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name}: {value!r} is not known; use {' or '.join(get_args(kind))}")
        if value is None:
            continue
        if entry.name in positive and not 0 < value < math.inf:
            raise ValueError(f"{name}: {value} is not possible; use a number greater than 0")
        if entry.name in not_negative and not 0 <= value < math.inf:
            raise ValueError(f"{name}: {value} is not possible; use 0 or more")
        if entry.name in share and not 0 < value < 1:
            raise ValueError(f"{name}: {value} is not possible; use a number between 0 and 1")
