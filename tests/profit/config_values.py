"""Values for every field of a configuration: allowed ones, and ones that are not, as JSON holds them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from subfour.models.zoo import Architecture
from subfour.profit.config import (
    AverageConfig,
    DistillConfig,
    LoadingConfig,
    OscillationConfig,
    ParallelConfig,
    ProfitConfig,
    RunConfig,
    ScheduleConfig,
)
from subfour.quantizers import QUANTIZER_PAIRS

WIDTHS = (32, 8, 7, 6, 5, 4, 3, 2)

SECTIONS: dict[str, type[Any]] = {
    "architecture": Architecture,
    "loading": LoadingConfig,
    "schedule": ScheduleConfig,
    "profit": ProfitConfig,
    "oscillation": OscillationConfig,
    "distill": DistillConfig,
    "average": AverageConfig,
    "parallel": ParallelConfig,
}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)

JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
"""Anything that JSON can hold, and what Python's JSON adds: NaN and infinities."""


@dataclass(frozen=True)
class Values:
    """What a field may hold, what lies just beside, and how to tell."""

    allowed: SearchStrategy[Any]
    """As Python has them: tuples and fractions."""
    near: SearchStrategy[Any]
    allows: Callable[[Any], bool]
    """Of a value in JSON."""
    of_text: Callable[[str], Any] | None = None
    """How the command line reads a word; None: it takes every text, or none."""
    many: bool = False
    """Whether the option takes several words."""

    @property
    def refused(self) -> SearchStrategy[Any]:
        """Values in JSON that are not allowed."""
        return (self.near | JUNK).filter(lambda value: not self.allows(value))

    @property
    def refused_words(self) -> SearchStrategy[list[str]]:
        """Words of a command line that are not allowed, none of which begins like an option."""
        word = st.text(max_size=8) | self.near.filter(lambda value: not isinstance(value, list)).map(str)
        words = st.lists(word, min_size=1, max_size=3 if self.many else 1)
        return words.filter(lambda words: not any("\0" in word or word.startswith("-") for word in words)).filter(self._is_wrong)

    def _is_wrong(self, words: list[str]) -> bool:
        assert self.of_text is not None
        try:
            read = [None if word == "None" else self.of_text(word) for word in words]
        except (ValueError, ArithmeticError):
            return True
        if self.many:
            return not self.allows([str(entry) if isinstance(entry, Fraction) else entry for entry in read])
        return not self.allows(read[0])


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def or_none(values: Values) -> Values:
    return Values(
        st.none() | values.allowed, values.near, lambda value: value is None or values.allows(value), values.of_text, values.many
    )


def whole(least: int | None) -> Values:
    near = st.floats(-3, 3) if least is None else st.integers(max_value=least - 1) | st.floats(least, least + 3)
    return Values(
        st.integers(least, None), near, lambda value: is_whole(value) and (least is None or value >= least), of_text=int
    )


def number(low: float, high: float, *, low_itself: bool = False) -> Values:
    """Values of an open interval, or one that is closed below."""
    allowed = st.floats(low, high, exclude_min=not low_itself, exclude_max=True)
    beyond = [float("nan"), float("inf"), float("-inf"), 10**400, -(10**400), high]
    near = st.sampled_from(beyond if low_itself else [*beyond, low]) | st.floats(max_value=low, exclude_max=True)

    def allows(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) == 10**400:
            return False
        return low < value < high or (low_itself and value == low)

    return Values(allowed, near, allows, of_text=float)


def choice(*known: str) -> Values:
    return Values(
        st.sampled_from(known), st.sampled_from([known[0].upper(), f"{known[0]} ", ""]), known.__contains__, of_text=str
    )


def one_of_widths(*widths: int) -> Values:
    return Values(
        st.sampled_from(widths),
        st.sampled_from([0, 1, 9, 31, 33, -4, 4.0, "4"]),
        lambda value: is_whole(value) and value in widths,
        of_text=int,
    )


def falling(value: object) -> bool:
    """Return whether a value is a list of widths, each below the one before."""
    if not isinstance(value, list) or not value or not all(is_whole(bits) and bits in WIDTHS for bits in value):
        return False
    return value == sorted(set(value), reverse=True)


def fractions(value: object) -> list[Fraction] | None:
    """Return the fractions that a list has as text; None where it is another."""
    if not isinstance(value, list) or not all(isinstance(share, str) and "e" not in share.lower() for share in value):
        return None
    try:
        return [Fraction(share) for share in value]
    except (ValueError, ArithmeticError):
        return None


def up_to_one(value: object) -> bool:
    """Return whether a value is a list of shares as text, the last of them 1, or an empty list."""
    shares = fractions(value)
    return shares == [] or (bool(shares) and shares[-1] == 1 and all(0 < share <= 1 for share in shares))


def rising(value: object) -> bool:
    """Return whether a value is a list of shares as text, each above the one before."""
    shares = fractions(value)
    return bool(shares) and shares == sorted(set(shares)) and all(0 < share < 1 for share in shares)


widths = Values(
    st.lists(st.sampled_from(WIDTHS), min_size=1, unique=True).map(lambda bits: tuple(sorted(bits, reverse=True))),
    st.lists(st.sampled_from([*WIDTHS, 0, 1, 9, -4]), max_size=4),
    falling,
    of_text=int,
    many=True,
)
sizes = Values(
    st.lists(st.fractions(Fraction(1, 100), 1), max_size=3).map(lambda first: (*first, Fraction(1)) if first else ()),
    st.lists(st.sampled_from(["0", "1", "4/3", "-1/3", "1/0", "a third", "32", "1/3"]), max_size=3),
    up_to_one,
    of_text=Fraction,
    many=True,
)
shares = Values(
    st.lists(st.fractions(Fraction(1, 100), Fraction(99, 100)), min_size=1, max_size=4, unique=True).map(sorted).map(tuple),
    st.lists(st.sampled_from(["0", "1", "4/3", "-1/3", "1/0", "a third", "1e999999999", "1/3", "2/3"]), max_size=3),
    rising,
    of_text=Fraction,
    many=True,
)
strides = Values(
    st.lists(st.integers(min_value=1), max_size=5).map(tuple),
    st.lists(st.integers(max_value=1), min_size=1, max_size=3),
    lambda value: isinstance(value, list) and all(is_whole(stride) and stride >= 1 for stride in value),
    of_text=int,
    many=True,
)


def three(one: Values) -> Values:
    """Values for red, green and blue."""
    return Values(
        st.tuples(*[one.allowed] * 3),
        st.lists(one.allowed, max_size=5).filter(lambda values: len(values) != 3) | st.tuples(one.allowed, one.allowed, one.near),
        lambda value: isinstance(value, list) and len(value) == 3 and all(map(one.allows, value)),
        of_text=float,
        many=True,
    )


text = Values(st.text(), st.binary().map(list), lambda value: isinstance(value, str))
switch = Values(st.booleans(), st.sampled_from([0, 1, "true"]), lambda value: isinstance(value, bool))
positive = number(0, float("inf"))
not_negative = number(0, float("inf"), low_itself=True)
share = number(0, 1)
in_unit_interval = Values(
    st.floats(0, 1),
    st.sampled_from([-0.5, 1.5, float("nan")]),
    lambda value: not_negative.allows(value) and value <= 1,
    of_text=float,
)

FIELDS: dict[str, Values] = {
    "recipe": text,
    "model": text,
    "weights": text,
    "start": choice("none", "dfq"),
    "data": text,
    "weight_bits": widths,
    "activation_bits": widths,
    "quantizer": choice(*QUANTIZER_PAIRS),
    "weight_granularity": choice("layer", "channel"),
    "batchnorm": choice("unfused", "fused"),
    "skip_bits": one_of_widths(32, 8, 7, 6, 5, 4),
    "method": choice("profit", "none", "dampening", "iterative-freezing", "random-order", "reversed-order", "data-free"),
    "padding": choice("negative", "zero"),
    "snap": switch,
    "refit_below_bits": whole(0),
    "activation_start": choice("least-squares", "percentile"),
    "teacher": text,
    "teacher_weights": text,
    "keep_phases": switch,
    "from_run": or_none(text),
    "starting_weight_bits": one_of_widths(*WIDTHS),
    "engine": choice("auto", "plain", "folded", "compiled"),
    "seed": whole(None),
    "device": text,
    "calibration_batches": whole(1),
    "architecture.width": positive,
    "architecture.strides": strides,
    "architecture.dropout": or_none(number(0, 1, low_itself=True)),
    "loading.image_size": or_none(whole(1)),
    "loading.augment": choice("crop-flip", "crop", "resized-crop", "none"),
    "loading.cutout": whole(0),
    "loading.workers": or_none(whole(0)),
    "loading.unreadable": choice("error", "skip"),
    "loading.resize_size": or_none(whole(1)),
    "loading.interpolation": or_none(choice("bilinear", "bicubic")),
    "loading.mean": or_none(three(in_unit_interval)),
    "loading.std": or_none(three(positive)),
    "schedule.batch_size": whole(1),
    **{f"schedule.{kind}_epochs": whole(0) for kind in ("float", "finetune", "stabilize", "sample", "snap")},
    "schedule.float_lr": or_none(positive),
    "schedule.float_sizes": sizes,
    "schedule.lr": positive,
    "schedule.snap_lr": positive,
    "schedule.range_lr_scale": not_negative,
    "schedule.momentum": share,
    "schedule.weight_decay": not_negative,
    "schedule.warmup_epochs": not_negative,
    "schedule.final_lr_scale": positive,
    "schedule.update": choice("epoch", "step"),
    "schedule.max_steps": or_none(whole(1)),
    "schedule.evaluations": whole(1),
    "profit.fractions": shares,
    "profit.at_bits": or_none(one_of_widths(8, 5, 4)),
    "profit.covers": choice("weights", "weights+ranges", "weights+ranges+batchnorm"),
    "profit.decay": share,
    "profit.corrected": switch,
    "profit.sample_stride": whole(1),
    "oscillation.dampening": not_negative,
    "oscillation.threshold_start": share,
    "oscillation.threshold_end": share,
    "oscillation.momentum": share,
    "distill.weight": not_negative,
    "distill.temperature": positive,
    "distill.teacher_mode": choice("eval", "train"),
    "average.decay": or_none(share),
    "average.restart": switch,
    "average.reestimate_batches": whole(0),
    "parallel.precision": choice("fp32", "bf16", "fp16"),
    "parallel.accumulate": whole(1),
    "parallel.sync_batchnorm": switch,
}
"""Each field by its dotted name; `skip_bits` and `at_bits` beside the widths that a configuration has by default."""


def dotted(values: dict[str, Any], section: str = "") -> Iterator[str]:
    """Yield the dotted name of each field of a configuration in JSON."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{name}.")
        else:
            yield section + name


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    """Draw a configuration with a value of its own in every field, and these in accord."""
    drawn = {name: draw(values.allowed) for name, values in FIELDS.items()}
    able = {32, *QUANTIZER_PAIRS[drawn["quantizer"]].weight_bits}
    drawn["weight_bits"] = tuple(bits for bits in drawn["weight_bits"] if bits in able) or (4,)
    drawn["skip_bits"] = max(drawn["skip_bits"], drawn["activation_bits"][-1])
    if drawn["keep_phases"]:
        for name in ("weight_bits", "activation_bits"):
            drawn[name] = tuple(bits for bits in drawn[name] for _ in range(draw(st.integers(1, 3)) if bits == 32 else 1))
    quantized = [bits for bits in drawn["weight_bits"] if bits != 32]
    drawn["profit.at_bits"] = draw(st.sampled_from([None, *quantized]))
    drawn["snap"] = drawn["snap"] and QUANTIZER_PAIRS[drawn["quantizer"]].integers
    drawn["schedule.snap_epochs"] += drawn["snap"] and not drawn["schedule.snap_epochs"]
    if drawn["teacher"] in ("self", "none"):
        drawn["teacher_weights"] = "pretrained"
    if drawn["method"] == "data-free":
        drawn["skip_bits"] = 32
    if not QUANTIZER_PAIRS[drawn["quantizer"]].per_channel:
        drawn["weight_granularity"] = "layer"
    if QUANTIZER_PAIRS[drawn["quantizer"]].follows_inputs:
        drawn["profit.covers"] = "weights"
    if drawn["batchnorm"] == "fused" and drawn["method"] in ("dampening", "iterative-freezing"):
        drawn["method"] = "profit"
    if drawn["quantizer"] != "duq" or drawn["batchnorm"] == "fused" or drawn["skip_bits"] != 32:
        drawn["engine"] = draw(st.sampled_from(["auto", "plain"]))
    parts = {
        section: kind(**{name.partition(".")[2]: value for name, value in drawn.items() if name.startswith(f"{section}.")})
        for section, kind in SECTIONS.items()
    }
    return RunConfig(**{name: value for name, value in drawn.items() if "." not in name}, **parts)
