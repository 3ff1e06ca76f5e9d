"""What the paper leads one to expect, and what the rows of a study say to it: one small rule per claim.

Rows are compared by seed. A difference counts where Student's t gives it a chance of 5 % at most, so one seed decides nothing,
and three seeds need 4.3 standard errors; for a ratio of deviations the F distribution says so. A rule says which rows it looked
at, and that there are none where the study has none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt
from statistics import fmean
from typing import Literal

from scipy.special import fdtri, stdtrit

from subfour.analysis.curves import fluctuation
from subfour.profit.comparison import Difference, paired_difference
from subfour.report.study import StudyRow

Verdict = Literal["confirmed", "refuted", "undecided"]

CONFIDENCE = 0.95
"""Of each verdict; there are several on a page."""

FAILS = 10.0
"""Points of top-1 below the same network without fusing from which training has failed; our number, the supplement has none."""

FAR = 5.0
"""Points of top-1 that are far behind; our number, the paper has none."""

STEADIER = 2.0
"""How many times less the validation loss fluctuates with PROFIT."""

BELOW = ("points below", "points above")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one pair of rows says to a claim."""

    verdict: Verdict
    words: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One claim and what the study says to it."""

    claim: str
    findings: Sequence[Finding]

    @property
    def verdict(self) -> Verdict | Literal["mixed", "not tested"]:
        """What the findings that decide say, if they say one thing."""
        if not self.findings:
            return "not tested"
        verdicts = {finding.verdict for finding in self.findings} - {"undecided"}
        return "undecided" if not verdicts else verdicts.pop() if len(verdicts) == 1 else "mixed"


Rule = Callable[[Sequence[StudyRow]], Iterator[Finding]]


def answers(rows: Sequence[StudyRow]) -> list[Answer]:
    """Return what a study says to every claim."""
    return [Answer(claim, list(rule(rows))) for claim, rule in CLAIMS.items()]


def duq_ends_lower(rows: Sequence[StudyRow]) -> Iterator[Finding]:
    """Supplement, Fig. 2: the validation loss on MobileNet-v3. Ranges of the two kinds may have rates of their own."""
    for duq, pact in product(_on_v3(rows), repeat=2):
        chosen = duq.config.quantizer == "duq" and duq.config.padding == "negative" and pact.config.quantizer == "pact-sawb"
        if chosen and duq.differs_only_in(pact, "quantizer", "padding", "schedule.range_lr_scale"):
            yield from _lower_loss(duq, pact)


def profit_lowers_loss(rows: Sequence[StudyRow]) -> Iterator[Finding]:
    """Supplement, Fig. 1: the validation loss."""
    for profit, control in _with_control(rows):
        yield from _lower_loss(profit, control)


def profit_steadies_loss(rows: Sequence[StudyRow]) -> Iterator[Finding]:
    """Supplement, Fig. 1: the fluctuation of the validation loss after sampling."""
    for profit, control in _with_control(rows):
        seeds = profit.records.keys() & control.records.keys()
        found, other = (fluctuation([row.records[seed].metrics for seed in seeds]) for row in (profit, control))
        if found is None or other is None or not found.deviation:
            continue
        times = other.deviation / found.deviation
        quantiles = (fdtri(other.freedom, found.freedom, share) for share in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2))
        least, most = (times / sqrt(float(quantile)) for quantile in quantiles)
        verdict: Verdict = "confirmed" if least >= STEADIER else "refuted" if most < STEADIER else "undecided"
        words = f"{found.deviation:.4f} in {profit.name}, {other.deviation:.4f} in {control.name}: {times:.1f} times less"
        yield Finding(verdict, f"{words} (between {least:.1f} and {most:.1f})")


def depthwise_leads(rows: Sequence[StudyRow]) -> Iterator[Finding]:
    """Sec. 3 of the paper: depthwise layers are the least stable. Half is what chance gives."""
    shares: dict[int, list[float]] = {}
    first = 0
    counted: list[StudyRow] = []
    for row in rows:
        # Rows that differ in what is frozen after sampling have one sampling phase.
        if row.config.ends_float or not row.records or any(row.differs_only_in(other, "method") for other in counted):
            continue
        counted.append(row)
        for seed, record in row.records.items():
            kinds = [layer["kind"] == "depthwise" for layer in record.sensitivity]
            if 0 < sum(kinds) < len(kinds):
                shares.setdefault(seed, []).append(_precedence(kinds))
                first += kinds[0]
    # Runs of one seed start from the same float network, so that they are no independent witnesses.
    by_seed = {seed: fmean(found) for seed, found in shares.items()}
    if difference := paired_difference(by_seed, dict.fromkeys(by_seed, 0.5)):
        share = 100 * fmean(by_seed.values())
        words = f"a depthwise layer comes first in {first} of {sum(map(len, shares.values()))} runs"
        yield Finding(_judge(difference), f"{words}, and before a layer of another kind {share:.0f} % of the time")


def fused_fails_per_layer(rows: Sequence[StudyRow]) -> Iterator[Finding]:
    """Supplement, Sec. 5, at 4-bit weights."""
    for granularity, fails in (("layer", True), ("channel", False)):
        for fused, plain in product(rows, repeat=2):
            pair = (fused.config.batchnorm, plain.config.batchnorm) == ("fused", "unfused") and fused.config.weight_bits[-1] == 4
            if not pair or fused.config.weight_granularity != granularity:
                continue
            if not fused.differs_only_in(plain, "batchnorm"):
                continue
            if fused.diverged and not fused.records and plain.records:
                yield Finding("confirmed" if fails else "refuted", f"{fused.name} diverged")
            elif difference := paired_difference(plain.top1, fused.top1):
                beyond = Difference(difference.mean - FAILS, difference.error, difference.pairs)
                yield Finding(
                    _judge(beyond if fails else beyond._replace(mean=-beyond.mean)),
                    f"per {granularity}, {fused.name} lies {difference.in_words(*BELOW, plain.name)}",
                )


def others_far_behind_at_3_bits(rows: Sequence[StudyRow]) -> Iterator[Finding]:
    """The paper's 3-bit MobileNet-v3: the best of the other quantizers against DuQ."""
    narrow = [row for row in _on_v3(rows) if row.widths == "A3W3" and row.top1]
    for duq in (row for row in narrow if row.config.quantizer == "duq" and row.config.padding == "negative"):
        others = [
            row
            for row in narrow
            if row.config.quantizer != "duq" and duq.differs_only_in(row, "quantizer", "padding", "schedule.range_lr_scale")
        ]
        if not others:
            continue
        seeds = max(len(row.top1) for row in others)
        best = max((row for row in others if len(row.top1) == seeds), key=lambda row: fmean(row.top1.values()))
        if difference := paired_difference(duq.top1, best.top1):
            ahead = Difference(difference.mean - FAR, difference.error, difference.pairs)
            yield Finding(_judge(ahead), f"{best.name} lies {difference.in_words(*BELOW, duq.name)}")


def order_matters(rows: Sequence[StudyRow]) -> Iterator[Finding]:
    """Ours: whether freezing by AIWQ beats freezing in another order."""
    for profit, other in product(rows, repeat=2):
        pair = profit.config.method == "profit" and other.config.method in ("random-order", "reversed-order")
        difference = paired_difference(profit.top1, other.top1)
        if pair and profit.differs_only_in(other, "method") and difference:
            words = f"{profit.name} lies {difference.in_words(*BELOW[::-1], other.name)}"
            yield Finding(_judge(difference), words)


CLAIMS: Mapping[str, Rule] = {
    "On MobileNet-v3, DuQ with negative padding ends at a lower validation loss than PACT (supplement, Fig. 2)": duq_ends_lower,
    "PROFIT lowers the validation loss (supplement, Fig. 1)": profit_lowers_loss,
    f"PROFIT makes the validation loss fluctuate at least {STEADIER:g} times less (supplement, Fig. 1)": profit_steadies_loss,
    "Depthwise layers lead the AIWQ order": depthwise_leads,
    f"At 4 bits, fused batch norm fails per layer and not per channel (more than {FAILS:g} points)": fused_fails_per_layer,
    f"On 3-bit MobileNet-v3, the best other quantizer is more than {FAR:g} points behind DuQ": others_far_behind_at_3_bits,
    "Freezing in AIWQ's order beats another order": order_matters,
}


def _on_v3(rows: Sequence[StudyRow]) -> list[StudyRow]:
    return [row for row in rows if "v3" in row.network]


def _with_control(rows: Sequence[StudyRow]) -> Iterator[tuple[StudyRow, StudyRow]]:
    """Yield each row with PROFIT and the same row with nothing frozen."""
    for profit, control in product(rows, repeat=2):
        methods = (profit.config.method, control.config.method)
        if methods == ("profit", "none") and profit.differs_only_in(control, "method"):
            yield profit, control


def _lower_loss(one: StudyRow, other: StudyRow) -> Iterator[Finding]:
    if other.diverged and not other.records and one.records:
        yield Finding("confirmed", f"{other.name} diverged")
    elif one.diverged and not one.records and other.records:
        yield Finding("refuted", f"{one.name} diverged")
    elif difference := paired_difference(other.loss, one.loss):
        yield Finding(_judge(difference), f"{one.name} ends {difference.in_words('below', 'above', other.name, 4)}")


def _judge(difference: Difference) -> Verdict:
    """Return what a difference says that is expected to be positive."""
    if difference.error is None:
        return "undecided"
    least = float(stdtrit(difference.pairs - 1, (1 + CONFIDENCE) / 2)) * difference.error
    if abs(difference.mean) <= least:
        return "undecided"
    return "confirmed" if difference.mean > 0 else "refuted"


def _precedence(kinds: Sequence[bool]) -> float:
    """Return how often one of the marked comes before one of the others."""
    before = marked = 0
    for kind in kinds:
        if kind:
            marked += 1
        else:
            before += marked
    return before / (marked * (len(kinds) - marked))
