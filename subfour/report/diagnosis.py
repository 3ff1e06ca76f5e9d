"""What went wrong, in words, and what to do about it: one small rule per fault, each a pure function."""

import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from subfour.analysis.activations import QuantizerSample
from subfour.listing import listed
from subfour.profit.collapse import AT_CHANCE, WELL_ABOVE
from subfour.profit.freezing import base_rate
from subfour.report.record import RunRecord

CLIPPED_NEGATIVE = 0.01
"""Share of negative inputs above which a quantizer without negative levels is a fault."""

ONE_BIN = 0.995
"""Share of the values in one code above which the layer tells nothing apart. ReLU outputs are 0 up to nine times in ten."""

COLLAPSED = 0.01
"""A range below this share of what it was, or of what enters, has collapsed."""

STILL = 0.01
"""A range that moved less than this share in a whole run has learned nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault."""

    severity: Literal["error", "warning", "note"]
    title: str
    words: str
    fix: str


RunRule = Callable[[RunRecord], Iterator[Finding]]

SampleRule = Callable[[Sequence[QuantizerSample]], Iterator[Finding]]


def diagnose(record: RunRecord, samples: Sequence[QuantizerSample]) -> list[Finding]:
    """Return every finding, the worst first.

    Args:
        record: of the run.
        samples: of its quantizers; empty where the network could not be looked into.
    """
    found = [finding for rule in RUN_RULES for finding in rule(record)]
    found += [finding for rule in SAMPLE_RULES for finding in rule(samples)]
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def training_collapsed(record: RunRecord) -> Iterator[Finding]:
    """The run stopped where it could lead nowhere any more, mostly at a loss that is not finite, or it logged one."""
    if record.failure is not None:
        phase, epoch = record.failure["phase"], record.failure["epoch"]
        words = f"In phase {phase + 1}, epoch {epoch + 1}: {record.failure['error']}."
        yield Finding("error", "Training collapsed", words, f"{_lower_rate(record, phase)} The epochs before it are kept.")
        return
    for record_of_epoch in record.metrics:
        if not math.isfinite(record_of_epoch["train_loss"]) or not math.isfinite(record_of_epoch["raw"]["loss"]):
            phase = record_of_epoch["phase"]
            words = f"The loss is not finite in phase {phase + 1}, epoch {record_of_epoch['epoch'] + 1}."
            yield Finding("error", "A value is not finite", words, _lower_rate(record, phase))
            return


def stopped_early(record: RunRecord) -> Iterator[Finding]:
    """The run has epochs left and no reason not to go on."""
    if record.status in ("unfinished", "not begun"):
        words = f"{len(record.metrics)} of {record.epochs} epochs are done; everything below is about those."
        command = f"subfour train --resume {shlex.quote(str(record.path))}"
        yield Finding("warning", "The run is not finished", words, f"If nothing trains it now, go on with: {command}")


def at_chance(record: RunRecord) -> Iterator[Finding]:
    """The accuracy is that of guessing, at widths that come after better ones."""
    if record.chance is None:
        return
    chance = record.chance
    guessing, learned = (chance + share * (100 - chance) for share in (AT_CHANCE, WELL_ABOVE))
    best = 0.0
    for row in record.widths:
        if row.top1 <= guessing and best >= learned:
            words = f"Top-1 falls to {row.top1:.2f} % at {row.name}, which is close to guessing, from {best:.2f} % before."
            fix = "Give the step more epochs or a width in between, such as 8 5 4 3; look for collapsed ranges below."
            yield Finding("error", f"The network collapses at {row.name}", words, fix)
            return
        best = max(best, row.top1)


def teacher_worse_than_student(record: RunRecord) -> Iterator[Finding]:
    """The float network teaches one that is better than it."""
    float_result, last = record.float_result, record.last_result
    if record.config.teacher != "self" or float_result is None or last is None or last.is_float:
        return
    if last.top1 > float_result.top1:
        words = f"The float network that teaches reaches {float_result.top1:.2f} %, its student {last.top1:.2f} % at {last.name}."
        fix = "It was not trained to its end: raise schedule.float-epochs, or name a better --teacher."
        yield Finding("note", "The teacher is worse than the student", words, fix)


def padding_not_mended(record: RunRecord) -> Iterator[Finding]:
    """Negative padding costs accuracy that the float phase does not bring back."""
    padding = (record.result or {}).get("padding_top1") or {}
    if "after_float" in padding and padding["after_float"] < padding["before"] - 1:
        words = f"Top-1 is {padding['before']:.2f} % padded with 0 and {padding['after_float']:.2f} % after the float phase."
        fix = "Raise schedule.float-epochs, or keep the stock network's padding with --padding zero."
        yield Finding("warning", "Negative padding is not mended", words, fix)


def samples_dropped(record: RunRecord) -> Iterator[Finding]:
    """AIWQ of a layer rests on less than half of its samples."""
    names = [layer["name"] for layer in record.sensitivity if layer["dropped"] > 0.5]
    if names:
        words = f"More than half of the samples lie above 1 and were dropped in {listed(names)}: the ranking is uncertain there."
        yield Finding("note", "AIWQ drops most samples", words, "A lower schedule.lr makes smaller steps, and smaller samples.")


def range_collapsed(record: RunRecord) -> Iterator[Finding]:
    """A learned range shrank to nothing."""
    names = [name for name, first, last in _range_ends(record) if last < COLLAPSED * first]
    if names:
        words = f"Less than 1 % is left of the range in {listed(names)}: nearly every value is clipped."
        yield Finding("error", "A range has collapsed", words, "Lower schedule.range-lr-scale, or schedule.lr.")


def ranges_still(record: RunRecord) -> Iterator[Finding]:
    """Learned ranges did not learn."""
    ends = list(_range_ends(record))
    names = [name for name, first, last in ends if abs(last / first - 1) < STILL]
    if record.status == "finished" and ends and len(names) > len(ends) / 2:
        words = f"{len(names)} of {len(ends)} activation ranges moved less than 1 % from their calibration."
        yield Finding("warning", "The ranges hardly move", words, "Raise schedule.range-lr-scale.")


def signed_input_clipped(samples: Sequence[QuantizerSample]) -> Iterator[Finding]:
    """Negative values enter a quantizer that has no level for them."""
    clipped = [
        sample
        for sample in samples
        if sample.role == "activation" and sample.levels[0] >= 0 and sample.negative_share > CLIPPED_NEGATIVE
    ]
    for domain, what, fix in (
        (
            "unsigned",
            "was made for values that are never negative",
            "The layer's input was taken for a ReLU's: please report it.",
        ),
        ("hswish", "has no level below 0 for an h-swish output", "--quantizer duq has levels from -3/8 up; this is its point."),
    ):
        if here := [sample for sample in clipped if sample.domain == domain]:
            share = max(sample.negative_share for sample in here)
            words = f"The quantizer {what}, and up to {100 * share:.0f} % of what enters is negative, in {_listed_layers(here)}."
            yield Finding("warning", "Negative inputs become 0", words, fix)


def all_in_one_bin(samples: Sequence[QuantizerSample]) -> Iterator[Finding]:
    """Nearly all values of a layer have one code."""
    if here := [sample for sample in samples if sample.commonest_share > ONE_BIN]:
        words = f"More than {100 * ONE_BIN:.1f} % of the values have one code in {_listed_layers(here)}."
        fix = "A dead layer, or a range far too wide: lower schedule.range-lr-scale; for weights raise refit-below-bits."
        yield Finding("error", "All codes in one bin", words, fix)


def range_misses_values(samples: Sequence[QuantizerSample]) -> Iterator[Finding]:
    """A quantizer's levels span next to nothing of what enters."""
    here = [
        sample
        for sample in samples
        if float(sample.levels[-1] - sample.levels[0]) < COLLAPSED * float(sample.values.max() - sample.values.min())
    ]
    if here:
        words = f"The levels span less than 1 % of the values in {_listed_layers(here)}."
        yield Finding("error", "A range has collapsed", words, "Lower schedule.range-lr-scale, or schedule.lr.")


def padding_mismatch(samples: Sequence[QuantizerSample]) -> Iterator[Finding]:
    """A border is padded with a value that is no code's."""
    if here := [sample for sample in samples if sample.pads and sample.pad_value != sample.quantizer.offset]:
        offset, pad_value = here[0].quantizer.offset, here[0].pad_value
        words = (
            f"The border is padded with {pad_value:g}, while code 0 is {offset:g}, in {_listed_layers(here)}: "
            f"{pad_value:g} is no level there, and an integer runtime has to add a border of its own."
        )
        yield Finding("note", "Padding and codes do not match", words, "--padding negative pads with the value of code 0.")


RUN_RULES: tuple[RunRule, ...] = (
    training_collapsed,
    stopped_early,
    at_chance,
    range_collapsed,
    ranges_still,
    teacher_worse_than_student,
    padding_not_mended,
    samples_dropped,
)

SAMPLE_RULES: tuple[SampleRule, ...] = (signed_input_clipped, all_in_one_bin, range_misses_values, padding_mismatch)


def _lower_rate(record: RunRecord, phase: int) -> str:
    _, rate = base_rate(record.phases[phase], record.config.schedule)
    return f"Try a lower {rate}."


def _range_ends(record: RunRecord) -> Iterator[tuple[str, float, float]]:
    """Yield each activation's input range when it began to quantize, and now."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for epoch in record.metrics:
        for name, roles in epoch.get("ranges", {}).items():
            if "activation" in roles and name not in record.fixed_ranges:
                first.setdefault(name, roles["activation"][0])
                last[name] = roles["activation"][0]
    yield from ((name, first[name], last[name]) for name in first if first[name])


def _listed_layers(samples: Iterable[QuantizerSample]) -> str:
    return listed([f"{sample.layer} ({sample.role})" for sample in samples])
