"""Each rule speaks where its fault is, and is silent where it is not."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from subfour.analysis.activations import QuantizerSample
from subfour.ops import FLOAT_BITS
from subfour.quantizers import PACT, DuQ, Quantizer
from subfour.report import diagnosis
from tests.report.records import CONFIG, FLOAT, epoch, record, row


def sample(values: list[float], quantizer: Quantizer | None = None, **changes: Any) -> QuantizerSample:
    """Return values that meet a quantizer with the levels 0..3, but for the changes."""
    if quantizer is None:
        quantizer = DuQ("unsigned")
        quantizer.bits = 2
        quantizer.set_ranges(torch.tensor(3.0))
    sound: dict[str, Any] = {"layer": "a.b", "kind": "pointwise", "role": "activation", "pad_value": 0.0, "pads": False}
    return QuantizerSample(values=torch.tensor(values), quantizer=quantizer, **(sound | changes))


SOUND = sample([0.0, 1.0, 2.0, 3.0])


def hswish(quantizer: type[DuQ] | type[PACT]) -> Quantizer:
    made = quantizer("hswish")
    made.bits = 4
    made.initialize(torch.linspace(-0.375, 2, 100))
    return made


RUN_FAULTS: list[tuple[str, diagnosis.RunRule, dict[str, Any], str]] = [
    (
        "failure",
        diagnosis.training_collapsed,
        {"failure": {"phase": 2, "epoch": 0, "error": "the loss is nan"}},
        "In phase 3, epoch 1",
    ),
    ("nan", diagnosis.training_collapsed, {"metrics": [epoch(math.nan)]}, "not finite in phase 1, epoch 1"),
    ("unfinished", diagnosis.stopped_early, {"result": None}, "2 of 59 epochs are done"),
    ("chance", diagnosis.at_chance, {"result": {"rows": [FLOAT, row((4, 4), 11.0)]}}, "falls to 11.00 % at A4W4"),
    ("teacher", diagnosis.teacher_worse_than_student, {"result": {"rows": [FLOAT, row((4, 4), 91.0)]}}, "reaches 90.00 %"),
    (
        "padding",
        diagnosis.padding_not_mended,
        {"result": {"rows": [FLOAT], "padding_top1": {"before": 90.0, "after": 20.0, "after_float": 88.0}}},
        "90.00 % padded with 0 and 88.00 %",
    ),
    ("dropped", diagnosis.samples_dropped, {"sensitivity": [{"name": "a.b", "dropped": 0.6}]}, "dropped in a.b"),
    ("collapse", diagnosis.range_collapsed, {"metrics": [epoch(a_b=1.0), epoch(a_b=0.001)]}, "in a.b"),
    ("still", diagnosis.ranges_still, {"metrics": [epoch(a_b=1.0), epoch(a_b=1.001)]}, "1 of 1 activation ranges"),
]


@pytest.mark.parametrize(
    ("rule", "changes", "words"), [fault[1:] for fault in RUN_FAULTS], ids=[fault[0] for fault in RUN_FAULTS]
)
def test_a_rule_about_a_run_finds_its_fault_and_only_that(rule: diagnosis.RunRule, changes: dict[str, Any], words: str):
    (finding,) = rule(record(**changes))
    assert words in finding.words
    assert finding.fix
    assert list(rule(record())) == []


@pytest.mark.parametrize(("phase", "rate"), [(0, "schedule.float-lr"), (1, "schedule.lr"), (-1, "schedule.snap-lr")])
def test_a_value_that_is_not_finite_points_at_the_rate_of_its_phase(phase: int, rate: str):
    config = replace(CONFIG, schedule=replace(CONFIG.schedule, float_lr=0.1))
    failure = {"phase": phase, "epoch": 0, "error": "the loss is nan"}
    (finding,) = diagnosis.training_collapsed(record(config=config, failure=failure))
    assert f"lower {rate}." in finding.fix


@pytest.mark.parametrize(
    ("classes", "before", "after", "collapsed"),
    [(2, 90.0, 70.0, False), (2, 90.0, 50.5, True), (2, 60.0, 50.0, False), (3, 95.0, 60.0, False), (3, 95.0, 34.0, True)],
)
def test_chance_is_far_above_0_with_few_classes(classes: int, before: float, after: float, collapsed: bool):
    """As the collapse guard of training has it: close to guessing, from well above."""
    rows = [row((FLOAT_BITS, FLOAT_BITS), before), row((4, 4), after)]
    assert bool(list(diagnosis.at_chance(record(chance=100 / classes, result={"rows": rows})))) is collapsed


SAMPLE_FAULTS: list[tuple[str, diagnosis.SampleRule, QuantizerSample, str]] = [
    ("signed", diagnosis.signed_input_clipped, sample([-1.0, -1.0, 1.0, 2.0]), "up to 50 % of what enters is negative, in a.b"),
    ("pact", diagnosis.signed_input_clipped, sample([-0.3, 1.0], hswish(PACT)), "no level below 0 for an h-swish output"),
    ("one bin", diagnosis.all_in_one_bin, sample([0.1] * 1000), "have one code in a.b (activation)"),
    ("span", diagnosis.range_misses_values, sample([-500.0, 500.0]), "less than 1 % of the values in a.b"),
    ("padding", diagnosis.padding_mismatch, sample([0.0, 1.0], hswish(DuQ), pads=True), "padded with 0, while code 0 is -0.375"),
]


@pytest.mark.parametrize(
    ("rule", "fault", "words"), [fault[1:] for fault in SAMPLE_FAULTS], ids=[fault[0] for fault in SAMPLE_FAULTS]
)
def test_a_rule_about_layers_finds_its_fault_and_only_that(rule: diagnosis.SampleRule, fault: QuantizerSample, words: str):
    (finding,) = rule([SOUND, fault])
    assert words in finding.words
    assert finding.fix
    assert list(rule([SOUND])) == []


def test_duq_and_its_own_padding_are_no_fault():
    sound = sample([-0.375, -0.1, 1.0, 2.0], hswish(DuQ), pads=True, pad_value=-0.375)
    assert diagnosis.diagnose(record(), [sound]) == []


def test_every_rule_is_among_those_that_run():
    rules = {
        name
        for name, value in vars(diagnosis).items()
        if callable(value) and value.__doc__ and "Finding]" in str(getattr(value, "__annotations__", {}).get("return"))
    }
    assert rules - {"diagnose"} == {rule.__name__ for rule in (*diagnosis.RUN_RULES, *diagnosis.SAMPLE_RULES)}


def test_the_worst_comes_first():
    run = record(result={"rows": [FLOAT, row((4, 4), 95.0)]}, metrics=[epoch(math.inf)])
    assert [finding.severity for finding in diagnosis.diagnose(run, [])] == ["error", "note"]


def test_a_better_teacher_of_its_own_is_not_judged():
    run = record(result={"rows": [FLOAT, row((4, 4), 95.0)]}, config=replace(CONFIG, teacher="torchvision/resnet101"))
    assert list(diagnosis.teacher_worse_than_student(run)) == []
