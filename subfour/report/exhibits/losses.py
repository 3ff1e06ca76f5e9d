"""Loss over the epochs, with and without PROFIT (F1), with one quantizer and another (F2)."""

from collections.abc import Callable, Sequence
from itertools import accumulate, groupby

from subfour.analysis.curves import fluctuation, loss_curve
from subfour.analysis.figures.epochs import loss_figure
from subfour.analysis.figures.style import Span
from subfour.profit.alike import differ_only_in
from subfour.report.exhibits.exhibit import Exhibit
from subfour.report.record import RunRecord


def profit_exhibit(records: Sequence[RunRecord]) -> Exhibit:
    """F1: loss with and without PROFIT, of the runs with the first one's quantizers."""
    main = records[0]
    shown = [record for record in records if record.config.quantizer == main.config.quantizer]
    hint = "" if len({record.config.method for record in shown}) > 1 else " Give a run with the other --method to compare."
    return _loss_exhibit("f1-profit", "Loss over the epochs", shown, lambda record: record.method, hint)


def quantizer_exhibit(records: Sequence[RunRecord]) -> Exhibit:
    """F2: loss with two quantizers, of the runs with the first one's method."""
    main, key, title = records[0], "f2-quantizers", "Loss with other quantizers"
    shown = [record for record in records if record.config.method == main.config.method]
    if len({record.config.quantizer for record in shown}) < 2:
        return Exhibit(key=key, title=title, caption="Give a second run, with another --quantizer, to compare.")
    return _loss_exhibit(key, title, shown, lambda record: record.config.quantizer, "")


def _loss_exhibit(key: str, title: str, records: Sequence[RunRecord], label: Callable[[RunRecord], str], hint: str) -> Exhibit:
    main = records[0]
    begun = [record for record in records if record.metrics]
    if not begun:
        return Exhibit(key=key, title=title, caption="No epoch is done yet." if main.epochs else "Nothing trains in this run.")

    def name_of(record: RunRecord) -> str:
        return "float" if record.config.ends_float else label(record)

    labels = [name_of(record) for record in begun]
    distinct = [name if labels.count(name) == 1 else f"{name}, {record.name}" for name, record in zip(labels, begun, strict=True)]
    curves = [loss_curve(name, record.metrics) for name, record in zip(distinct, begun, strict=True)]
    groups = _by_seed_alone(begun)
    firsts = [name_of(group[0]) for group in groups]
    sentences = []
    for group, name in zip(groups, firsts, strict=True):
        if found := fluctuation([record.metrics for record in group]):
            runs = f", {found.runs} runs" if found.runs > 1 else ""
            which = name if firsts.count(name) == 1 else f"{name}, {group[0].name}"
            sentences.append(f"{which} {found.deviation:.4f} ({found.changes} changes{runs})")
    jumps = (
        f" Fluctuation of the validation loss after sampling, restarts left out: {'; '.join(sentences)}."
        if sentences
        else " Too few epochs after sampling to speak of fluctuation."
    )
    ends = [0, *accumulate(phase.epochs for phase in main.phases)]
    last = max(len(record.metrics) for record in begun)
    caption = f"Losses of the raw weights, {last} epochs; shades tell widths apart, lines phases.{jumps}{hint}"
    rows = [
        (curve.label, epoch, trained.get(epoch, ""), validation)
        for curve in curves
        for trained in (dict(curve.training),)  # no loss inside an epoch
        for epoch, validation in curve.validation
    ]
    widths = [span for span in _width_spans(main) if span.start < last]
    return Exhibit(
        key=key,
        title=title,
        caption=caption,
        svg=loss_figure(curves, widths, [end for end in ends[1:-1] if end < last], key),
        columns=("run", "epoch", "training_loss", "validation_loss"),
        rows=rows,
    )


def _by_seed_alone(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return the runs in groups that differ in their seed only."""
    groups: list[list[RunRecord]] = []
    for record in records:
        alike = next((group for group in groups if differ_only_in(group[0].config, record.config)), None)
        if alike is None:
            groups.append([record])
        else:
            alike.append(record)
    return groups


def _width_spans(record: RunRecord) -> list[Span]:
    """Return the blocks of epochs at one pair of widths."""
    spans, done = [], 0
    for widths, phases in groupby(record.phases, key=lambda phase: phase.widths_name):
        epochs = sum(phase.epochs for phase in phases)
        spans.append(Span(widths, done, done + epochs))
        done += epochs
    return spans
