"""The configuration of a run: one frozen, typed value that decides everything, and that a recipe returns.

Where the paper, the authors' code and this package differ, the difference is a field here. Defaults are the paper's ImageNet
values; recipes change them. Every field is an option of `subfour train`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from subfour.convert.policy import Padding
from subfour.convert.rewrite import BatchNorm
from subfour.models.zoo import Architecture
from subfour.ops import FLOAT_BITS, check_bits
from subfour.profit.fields import BitWidth, check_fields
from subfour.profit.plain import from_plain, to_plain, without_later
from subfour.profit.sections import (
    AverageConfig,
    DistillConfig,
    LoadingConfig,
    OscillationConfig,
    ParallelConfig,
    ProfitConfig,
    ScheduleConfig,
)
from subfour.quantizers import (
    Granularity,
    QuantizerName,
    RangeStart,
    check_granularity,
    check_weight_bits,
    quantizer_pair,
)
from subfour.rundir import CONFIG_FILE, RunDirectory

__all__ = [
    "AverageConfig",
    "DistillConfig",
    "Engine",
    "LoadingConfig",
    "OscillationConfig",
    "ParallelConfig",
    "ProfitConfig",
    "RunConfig",
    "ScheduleConfig",
]


Engine = Literal["auto", "plain", "folded", "compiled"]
"""How training steps are computed; all compute the same."""

ON_CODES = ("duq", "duq-offset")
"""Quantizers whose training steps can be computed on codes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that decides a run."""

    recipe: Annotated[str, tyro.conf.Suppress] = "custom"
    """Name of the recipe this started from."""
    model: str = "torchvision/mobilenet_v2"
    """Network: torchvision/NAME, timm/NAME, subfour/NAME, or DISTRIBUTION/NAME of another package that is installed."""
    weights: str = "pretrained"
    """Starting weights: pretrained, none, or the file of a state dict or of a training checkpoint."""
    start: Literal["none", "dfq"] = "none"
    """Equalize the weight ranges of the float network across layers first, as DFQ does; ReLU6 becomes ReLU."""
    data: str = "folder:imagenet"
    """Images: digits, folder:PATH, parquet:PATH, hub:NAME or hub:NAME@CONFIGURATION."""
    weight_bits: tuple[BitWidth, ...] = (8, 5, 4)
    """Widths of the weights, one block of phases each; 32 is float."""
    activation_bits: tuple[BitWidth, ...] = (8, 5, 4)
    """Widths of the activations, one block of phases each; 32 is float."""
    quantizer: QuantizerName = "duq"
    """Which paper's quantizers; DISTRIBUTION/NAME for those of another package that is installed."""
    weight_granularity: Granularity = "layer"
    """Weight ranges per layer, or per output channel (duq, duq-offset, lsq, lsq-plus)."""
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
    """End with a snap phase: constants on grids where every integer executor gives the same codes. Float networks have
    none, nor has what method data-free makes, which trains nothing."""
    refit_below_bits: int = 4
    """A new weight width below this sets the weight ranges anew; 0: never, they stay those of the width before (authors)."""
    activation_start: RangeStart = "percentile"
    """Activation ranges of DuQ, PACT and DSQ start where the squared error is least, or at the 95th percentile (authors), which
    is better where they go on to narrower widths; DuQ's that begin below 4 bits are always fitted."""
    teacher: str = "self"
    """Teacher network: self (the float network at the end of its phase), none, or torchvision/NAME or timm/NAME, pretrained."""
    teacher_weights: str = "pretrained"
    """The teacher's weights, unless it is self: pretrained, or a file."""
    keep_phases: bool = False
    """Run the phases of 32-bit widths too: a float control with the epochs of a quantized run. A lone 32 stands for as many
    widths as the recipe has; where another run is continued, for one."""
    from_run: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Continue from the final weights of this run directory, at other widths."""
    starting_weight_bits: Annotated[BitWidth, tyro.conf.Suppress] = FLOAT_BITS
    """Weight width of the run that this one continues."""
    engine: Annotated[Engine, tyro.conf.arg(aliases=("--path",))] = "auto"
    """How training steps are computed: as the quantizers say (plain), on codes (folded), the faster of these two (auto), or
    on codes with kernels that are compiled here (compiled)."""
    seed: int = 0
    """Decides every random choice."""
    device: str = "auto"
    """auto (cuda if there is one), cpu, cuda."""
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
        check_fields(self, "", positive={"calibration_batches"}, not_negative={"refit_below_bits"})
        for name, widths in (("weight_bits", self.weight_bits), ("activation_bits", self.activation_bits)):
            if not widths:
                raise ValueError(f"{name}: no width given; name at least one, such as 4, or 32 for float")
            for bits in widths:
                check_bits(bits, name)
            repeatable = [bits for bits in widths if not (self.keep_phases and bits == FLOAT_BITS)]
            distinct = len(set(repeatable)) == len(repeatable)
            if list(widths) != sorted(widths, reverse=True) or not distinct:
                raise ValueError(f"{name}: {' '.join(map(str, widths))} must fall from one width to the next, such as 8 5 4")
        if self.batchnorm == "fused" and self.method in ("dampening", "iterative-freezing"):
            raise ValueError(
                f"batchnorm: fused is not possible with --method {self.method}, which moves single weights; use unfused"
            )
        check_bits(self.skip_bits, "skip_bits")
        check_bits(self.starting_weight_bits, "starting_weight_bits")
        if self.engine in ("folded", "compiled") and not self.foldable:
            raise ValueError(
                f"engine: {self.engine} needs --quantizer {' or '.join(ON_CODES)}, --batchnorm unfused and --skip-bits 32; "
                "use auto"
            )
        check_granularity(self.quantizer, self.weight_granularity)
        check_weight_bits(self.quantizer, self.weight_bits)
        if self.profit.at_bits is not None and self.profit.at_bits not in self.weight_bits:
            widths_shown = " ".join(map(str, self.weight_bits))
            raise ValueError(
                f"profit.at_bits: {self.profit.at_bits} is not among weight_bits ({widths_shown}); "
                "name one of them, or add it to these"
            )
        self._refuse_what_would_be_ignored()

    def _refuse_what_would_be_ignored(self) -> None:
        if self.profit.at_bits == FLOAT_BITS:
            raise ValueError("profit.at_bits: 32 is float, where nothing is frozen; name a width below it")
        if self.snaps and not quantizer_pair(self.quantizer).integers:
            raise ValueError(f"snap: {self.quantizer} has no integer form, so that nothing can be snapped; add --no-snap")
        if self.snaps and not self.schedule.snap_epochs:
            raise ValueError("schedule.snap_epochs: 0 leaves the snap phase out; use 1 or more, or --no-snap")
        if self.skip_bits != FLOAT_BITS and self.method == "data-free":
            raise ValueError(f"skip_bits: {self.skip_bits} needs ranges that --method data-free does not set; use 32")
        if self.skip_bits < self.activation_bits[-1]:
            raise ValueError(
                f"skip_bits: {self.skip_bits} is below {self.activation_bits[-1]}, the last of activation_bits, and skips are "
                "never narrower; use as many bits or more"
            )
        if self.profit.covers != "weights" and quantizer_pair(self.quantizer).follows_inputs:
            raise ValueError(
                f"profit.covers: {self.profit.covers} cannot stop the activation ranges of --quantizer {self.quantizer}, which "
                "are not learned but follow their inputs; use weights, or another quantizer"
            )
        if self.teacher in ("self", "none") and self.teacher_weights != "pretrained":
            raise ValueError(
                f"teacher_weights: {self.teacher_weights!r} is not read with --teacher {self.teacher}; name the teacher's network"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a weight: what a checkpoint remembers.

        Engines compute the same, and looking more often changes nothing; the images are checked by their names and labels. What
        becomes of one that cannot be read decides nothing until there is one.
        """
        values = self.to_json()
        del values["engine"], values["schedule"]["evaluations"], values["data"], values["device"]
        del values["loading"]["workers"], values["loading"]["unreadable"]
        if self.method not in ("dampening", "iterative-freezing"):
            del values["oscillation"]
        for names in self.missing_phases.values():
            for name in names:
                del values["schedule"][name]
        values = without_later(values)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def foldable(self) -> bool:
        """Whether training steps can be computed on codes."""
        return self.quantizer in ON_CODES and self.batchnorm == "unfused" and self.skip_bits == FLOAT_BITS

    @property
    def ends_float(self) -> bool:
        """Whether the final network is float."""
        return self.weight_bits[-1] == self.activation_bits[-1] == FLOAT_BITS

    @property
    def snaps(self) -> bool:
        """Whether the run ends with a snap phase: asked for, quantized, and trained."""
        return self.snap and self.method != "data-free" and FLOAT_BITS not in (self.weight_bits[-1], self.activation_bits[-1])

    @property
    def missing_phases(self) -> dict[str, tuple[str, ...]]:
        """The fields of `schedule` that belong to a phase which the run has not, by the reason."""
        missing: dict[str, tuple[str, ...]] = {}
        if self.from_run is not None:
            missing["with --from, after which there is no float phase"] = ("float_epochs", "float_lr", "float_sizes")
        if not self.snaps:
            missing["without a snap phase"] = ("snap_epochs", "snap_lr")
        return missing

    @property
    def teaches(self) -> bool:
        """Whether a teacher has a say in the loss."""
        return self.teacher != "none" and self.distill.weight > 0 and self.method != "data-free"

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
        return to_plain(self)  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunConfig":
        """Rebuild a configuration from `to_json`.

        Raises:
            ValueError: a field is missing, unknown, or has a value that is not allowed.
        """
        return from_plain(cls, data)


def config_in(run: RunDirectory) -> RunConfig:
    """Return the configuration of a run.

    Raises:
        ValueError: the file is missing or damaged, or a field has a value that is not allowed.
    """
    return RunConfig.from_json(run.read_json(CONFIG_FILE))
