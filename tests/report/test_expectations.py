"""Each claim is confirmed, refuted and left open by rows made for it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from subfour.report import expectations
from subfour.report.expectations import Rule, Verdict, answers
from subfour.report.study import StudyRow
from tests.report.study_rows import config_of, study_row

V2 = {"model": "torchvision/mobilenet_v2"}
V3 = {"model": "subfour/tiny_mobilenet_v3"}
PROFIT = {"method": "profit"}
ORDER = {"method": "random-order"}
PACT = {"quantizer": "pact-sawb", "padding": "zero"}
FUSED = {"batchnorm": "fused"}
CHANNEL = {"weight_granularity": "channel"}


class Case(NamedTuple):
    """Two rows, and what a rule makes of them."""

    rule: Rule
    bits: int
    one: dict[str, Any]
    other: dict[str, Any]
    """Their configurations."""
    top1: tuple[Sequence[float], Sequence[float]]
    """Of both rows, by seed."""
    verdicts: list[Verdict]


FAR_APART, FAILED, ONE_SEED = ([90, 91, 90.5], [80, 80.5, 80.2]), ([90, 91, 90.5], [20, 21.5, 20.6]), ([90], [20])

CASES = {
    "duq": Case(expectations.duq_ends_lower, 4, V3, V3 | PACT, FAR_APART, ["confirmed"]),
    "pact": Case(expectations.duq_ends_lower, 4, V3, V3 | PACT, FAR_APART[::-1], ["refuted"]),
    "close": Case(expectations.duq_ends_lower, 4, V3, V3 | PACT, ([90, 80, 85], [85, 86, 80]), ["undecided"]),
    "one seed": Case(expectations.duq_ends_lower, 4, V3, V3 | PACT, ONE_SEED, ["undecided"]),
    "v2": Case(expectations.duq_ends_lower, 4, V2, V2 | PACT, FAR_APART, []),
    "loss": Case(expectations.profit_lowers_loss, 3, PROFIT, {}, FAR_APART, ["confirmed"]),
    "two options": Case(expectations.profit_lowers_loss, 3, PROFIT | {"teacher": "none"}, {}, FAR_APART, []),
    "order": Case(expectations.order_matters, 3, PROFIT, ORDER, FAR_APART[::-1], ["refuted"]),
    "far": Case(expectations.others_far_behind_at_3_bits, 3, V3, V3 | PACT, FAR_APART, ["confirmed"]),
    "near": Case(expectations.others_far_behind_at_3_bits, 3, V3, V3 | PACT, ([90, 91, 90.5], [88, 89.5, 88.7]), ["refuted"]),
    "4 bits": Case(expectations.others_far_behind_at_3_bits, 4, V3, V3 | PACT, FAR_APART, []),
    "fused fails": Case(expectations.fused_fails_per_layer, 4, {}, FUSED, FAILED, ["confirmed"]),
    "fused works": Case(expectations.fused_fails_per_layer, 4, {}, FUSED, ([90, 91, 90.5], [89, 90.5, 89.7]), ["refuted"]),
    "channel works": Case(
        expectations.fused_fails_per_layer, 4, CHANNEL, CHANNEL | FUSED, ([90, 91, 90.5], [89, 90.5, 89.7]), ["confirmed"]
    ),
    "channel fails": Case(expectations.fused_fails_per_layer, 4, CHANNEL, CHANNEL | FUSED, FAILED, ["refuted"]),
    "fused once": Case(expectations.fused_fails_per_layer, 4, {}, FUSED, ONE_SEED, ["undecided"]),
    "fused spread": Case(expectations.fused_fails_per_layer, 4, {}, FUSED, ([90, 91, 90], [70, 89, 80]), ["undecided"]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_rows_settle_a_claim(tmp_path: Path, case: Case):
    configs = {"one": config_of(case.bits, **case.one), "other": config_of(case.bits, **case.other)}
    rows = [study_row(tmp_path, name, config, top1) for (name, config), top1 in zip(configs.items(), case.top1, strict=True)]
    assert [finding.verdict for finding in case.rule(rows)] == case.verdicts
    assert [finding.verdict for finding in case.rule(rows[::-1])] == case.verdicts


def test_a_fused_row_that_diverged_has_failed(tmp_path: Path):
    rows = [study_row(tmp_path, "one", config_of(4), [90.0]), study_row(tmp_path, "fused", config_of(4, **FUSED), [None])]
    (finding,) = expectations.fused_fails_per_layer(rows)
    assert (finding.verdict, finding.words) == ("confirmed", "fused diverged")


@pytest.mark.parametrize(
    ("scale", "seeds", "verdict"), [(8, 3, "confirmed"), (0.5, 3, "refuted"), (4, 3, "undecided"), (8, 2, "undecided")]
)
def test_fluctuations_are_compared_by_the_f_distribution(tmp_path: Path, scale: float, seeds: int, verdict: Verdict):
    """The seeds' curves lie apart by one step, up or down; those without PROFIT by `scale` times as much.

    Quantiles at 97.5 %, from a table: 9.60 with 4 and 4 degrees of freedom (3 seeds, 2 changes), 39.0 with 2 and 2. So 8 times is
    at least 2.58 times with three seeds, and 1.28 with two; 4 times is at least 1.29, and half of it at most 1.55.
    """
    steps = [(0.0, 1.0, 0.0), (0.0, -1.0, 1.0), (0.0, 0.0, -1.0)]

    def row(name: str, method: str, factor: float) -> StudyRow:
        losses = {seed: [factor * step for step in steps[seed]] for seed in range(seeds)}
        return study_row(tmp_path, name, config_of(3, method=method), [90.0] * seeds, losses=losses)

    (finding,) = expectations.profit_steadies_loss([row("with", "profit", 1), row("without", "none", scale)])
    assert finding.verdict == verdict
    assert f": {scale:.1f} times less" in finding.words


def test_the_interval_of_a_ratio_of_fluctuations_is_shown(tmp_path: Path):
    losses = {seed: [0.0, *step] for seed, step in enumerate([(1.0, 0.0), (-1.0, 1.0), (0.0, -1.0)])}
    rows = [study_row(tmp_path, method, config_of(3, method=method), [90.0] * 3, losses=losses) for method in ("profit", "none")]
    (finding,) = expectations.profit_steadies_loss(rows)
    assert finding.words.endswith("1.0 times less (between 0.3 and 3.1)")


def test_fluctuations_are_those_of_the_seeds_that_both_rows_have(tmp_path: Path):
    """In the third, without its counterpart, only the loss of the row with PROFIT jumps."""
    losses = {0: [0.0, 1.0, 0.0], 1: [0.0, -1.0, 1.0], 2: [0.0, 9.0, -9.0]}
    counterparts = {"profit": [90.0] * 3, "none": [90.0, 90.0, None]}
    rows = [
        study_row(tmp_path, method, config_of(3, method=method), top1, losses=losses) for method, top1 in counterparts.items()
    ]
    (finding,) = expectations.profit_steadies_loss(rows)
    assert ": 1.0 times less" in finding.words
    rows = [
        study_row(tmp_path / "none", "profit", rows[0].config, [90.0] * 3, losses=losses),
        study_row(tmp_path / "none", "none", rows[1].config, [None]),
    ]
    assert not list(expectations.profit_steadies_loss(rows))


def test_a_row_that_diverged_ends_above_one_that_did_not(tmp_path: Path):
    rows = [
        study_row(tmp_path, "with", config_of(3, method="profit"), [90.0]),
        study_row(tmp_path, "without", config_of(3), [None]),
    ]
    (finding,) = expectations.profit_lowers_loss(rows)
    assert (finding.verdict, finding.words) == ("confirmed", "without diverged")


@pytest.mark.parametrize("other", [[None], []])
def test_a_row_that_diverged_says_nothing_beside_one_that_did_not_end(tmp_path: Path, other: list[None]):
    missing = [] if other else [0]
    wild = study_row(tmp_path, "wild", config_of(4, method="profit"), [None])
    control = study_row(tmp_path, "control", config_of(4), other, missing=missing)
    fused = study_row(tmp_path, "fused", config_of(4, **FUSED), [None])
    rows = [wild, control, fused]
    assert not [*expectations.profit_lowers_loss(rows), *expectations.fused_fails_per_layer(rows)]


def test_what_decides_nothing_does_not_make_a_claim_mixed():
    findings = [expectations.Finding(verdict, "") for verdict in ("undecided", "confirmed", "undecided")]
    assert expectations.Answer("a claim", findings).verdict == "confirmed"
    assert expectations.Answer("a claim", findings[:1]).verdict == "undecided"


@pytest.mark.parametrize(
    ("kinds", "verdict"),
    [
        (["depthwise", "depthwise", "pointwise", "pointwise"], "confirmed"),
        (["pointwise", "pointwise", "depthwise"], "refuted"),
    ],
)
def test_depthwise_layers_lead_where_they_come_before_others(tmp_path: Path, kinds: list[str], verdict: Verdict):
    row = study_row(tmp_path, "row", config_of(3), [90.0, 90.0], kinds=kinds)
    (finding,) = expectations.depthwise_leads([row])
    assert finding.verdict == verdict


def test_a_sampling_phase_that_rows_share_is_counted_once_and_one_in_float_not(tmp_path: Path):
    configs = {
        "none": config_of(3),
        "profit": config_of(3, method="profit"),
        "lsq": config_of(3, quantizer="lsq"),
        "float": config_of(32),
    }
    rows = [study_row(tmp_path, name, config, [90.0, 90.0], kinds=["depthwise", "linear"]) for name, config in configs.items()]
    (finding,) = expectations.depthwise_leads(rows)
    assert finding.words.startswith("a depthwise layer comes first in 4 of 4 runs")
    waiting = study_row(tmp_path, "waiting", config_of(3, method="reversed-order"), [], missing=[0, 1])
    assert [*expectations.depthwise_leads([waiting, *rows])] == [finding]


def test_an_order_as_good_as_chance_leads_nothing(tmp_path: Path):
    """Of 2 x 2 pairs a depthwise layer comes first in 2."""
    row = study_row(tmp_path, "row", config_of(3), [90.0], kinds=["depthwise", "pointwise", "pointwise", "depthwise"])
    (finding,) = expectations.depthwise_leads([row])
    assert finding.verdict == "undecided"
    assert "50 % of the time" in finding.words


def test_a_claim_without_rows_is_not_tested_and_one_with_two_answers_is_mixed(tmp_path: Path):
    assert {answer.verdict for answer in answers([])} == {"not tested"}
    tops = {("layer", "unfused"): 90.0, ("layer", "fused"): 20.0, ("channel", "unfused"): 90.0, ("channel", "fused"): 20.0}
    rows = [
        study_row(tmp_path, f"{layer}-{norm}", config_of(4, weight_granularity=layer, batchnorm=norm), [top1, top1])
        for (layer, norm), top1 in tops.items()
    ]
    (fused,) = [answer for answer in answers(rows) if answer.findings]
    assert fused.verdict == "mixed"
    assert [finding.verdict for finding in fused.findings] == ["confirmed", "refuted"]


def test_every_rule_answers_a_claim():
    rules = {
        name
        for name, value in vars(expectations).items()
        if not name.startswith("_") and "Finding]" in str(getattr(value, "__annotations__", {}).get("return"))
    }
    assert rules == {rule.__name__ for rule in expectations.CLAIMS.values()}


def test_rows_of_another_schedule_are_not_compared_but_for_the_rate_of_their_ranges(tmp_path: Path):
    """LSQ has to have a rate of its own; a row that trains five times as long says nothing about its quantizer."""
    base = config_of(4, **V3)
    for change, findings in (({"range_lr_scale": 1.0}, 1), ({"finetune_epochs": 10}, 0), ({"lr": 0.5}, 0)):
        pact = replace(base, quantizer="pact-sawb", padding="zero", schedule=replace(base.schedule, **change))
        folder = tmp_path / next(iter(change))
        rows = [study_row(folder, "duq", base, [90.0, 91.0]), study_row(folder, "pact", pact, [80.0, 80.5])]
        assert len(list(expectations.duq_ends_lower(rows))) == findings


def test_the_best_of_the_others_is_one_of_those_with_most_seeds(tmp_path: Path):
    rows = [
        study_row(tmp_path, "duq", config_of(3, **V3), [90.0, 91.0, 90.5]),
        study_row(tmp_path, "lucky", config_of(3, **V3, quantizer="lsq"), [95.0]),
        study_row(tmp_path, "pact", config_of(3, **V3, **PACT), [80.0, 80.5, 80.2]),
    ]
    (finding,) = expectations.others_far_behind_at_3_bits(rows)
    assert finding.verdict == "confirmed"
    assert finding.words.startswith("pact lies")
