"""The schedule as data: which widths, which kind of training, how much is frozen, for how many epochs.

Source: the authors' train_ts.py, in their order (PROFIT, arXiv:2008.04693). With three widths 8, 5, 4:

    float
    activations 8, 5, 4 (float weights):  stabilize, finetune, stabilize
    weights     8, 5    (4-bit inputs):   stabilize, finetune, stabilize
    weights     4, where PROFIT acts:     stabilize, sample, finetune, finetune 1/3 frozen, finetune 2/3 frozen, stabilize

    snap, if asked for: the deployed constants, trained where rounding leaves them (integer/snap.py)

`stabilize` trains batch norm, biases and ranges of every layer, never weights. The list is computed before anything trains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from subfour.ops import FLOAT_BITS, widths_key, widths_name
from subfour.profit.config import RunConfig

PhaseKind = Literal["float", "stabilize", "sample", "finetune", "snap", "data-free"]

NOTHING = Fraction(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One block of epochs at fixed widths."""

    kind: PhaseKind
    weight_bits: int
    activation_bits: int
    epochs: int
    frozen: Fraction = NOTHING
    """Share of the sampled layers, the most unstable first, that does not train."""

    @property
    def widths(self) -> str:
        """The widths by name, activations first, such as A4W32."""
        return widths_key(self.weight_bits, self.activation_bits)

    @property
    def widths_name(self) -> str:
        """The widths as people are shown them: `widths`, or float."""
        return widths_name(self.weight_bits, self.activation_bits)

    def to_json(self) -> dict[str, str | int]:
        """Return plain values, the fraction as a string."""
        return {
            "kind": self.kind,
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "frozen": str(self.frozen),
            "epochs": self.epochs,
        }


def build_phases(config: RunConfig) -> list[Phase]:
    """Return the phases of a run, in order; phases without epochs are left out.

    A width of 32 has no phases of its own, unless `keep_phases` asks for a float network trained as long as a quantized one.
    A run continued from another (`from_run`) starts quantized, so it has no float phase, and its activation blocks leave
    the weights at the width they had. The method without training has one phase without epochs.

    Raises:
        ValueError: no phase has an epoch, or layers are to be frozen by a measure that is never taken.
    """
    if config.method == "data-free":
        weight_bits, activation_bits = config.weight_bits[-1], config.activation_bits[-1]
        return [Phase(kind="data-free", weight_bits=weight_bits, activation_bits=activation_bits, epochs=0)]
    phases = [phase for phase in _all_phases(config) if phase.epochs > 0]
    if not phases:
        raise ValueError("schedule: no phase has an epoch, so there is nothing to train; give some, or a width below 32")
    if any(phase.frozen for phase in phases) and not any(phase.kind == "sample" for phase in phases):
        raise ValueError("schedule.sample_epochs: 0 leaves nothing to choose layers by; use 1 or more, or --method none")
    return phases


def ends_widths(phases: Sequence[Phase], index: int) -> bool:
    """Return whether a phase is the last at its widths, or the last before snapping: what it reaches is a result."""
    following = phases[index + 1] if index + 1 < len(phases) else None
    return following is None or following.kind == "snap" or following.widths != phases[index].widths


def _all_phases(config: RunConfig) -> Iterator[Phase]:
    schedule = config.schedule
    weight_bits = config.starting_weight_bits
    if not config.from_run:
        yield Phase(kind="float", weight_bits=FLOAT_BITS, activation_bits=FLOAT_BITS, epochs=schedule.float_epochs)
    for bits in config.activation_bits:
        if bits != FLOAT_BITS or config.keep_phases:
            yield from _block(config, weight_bits, bits, freezing=False)
    activation_bits = config.activation_bits[-1]
    last = max(position for position, bits in enumerate(config.weight_bits) if bits == config.profit_bits)
    for position, bits in enumerate(config.weight_bits):
        if bits != FLOAT_BITS or config.keep_phases:
            yield from _block(config, bits, activation_bits, freezing=position == last)
    if config.snaps:
        yield Phase(kind="snap", weight_bits=config.weight_bits[-1], activation_bits=activation_bits, epochs=schedule.snap_epochs)


def _block(config: RunConfig, weight_bits: int, activation_bits: int, *, freezing: bool) -> Iterator[Phase]:
    """Yield one width's phases; with `freezing`, sampling and the progressive freeze.

    Where no layers are frozen (method none and others) and in float the same epochs run with nothing frozen: the control.
    """
    schedule = config.schedule

    def phase(kind: PhaseKind, epochs: int, frozen: Fraction = NOTHING) -> Phase:
        return Phase(kind=kind, weight_bits=weight_bits, activation_bits=activation_bits, epochs=epochs, frozen=frozen)

    yield phase("stabilize", schedule.stabilize_epochs)
    if freezing:
        acts = config.freezes_layers and weight_bits != FLOAT_BITS
        yield phase("sample", schedule.sample_epochs)
        for frozen in (NOTHING, *config.profit.fractions):
            yield phase("finetune", schedule.finetune_epochs, frozen if acts else NOTHING)
    else:
        yield phase("finetune", schedule.finetune_epochs)
    yield phase("stabilize", schedule.stabilize_epochs)
