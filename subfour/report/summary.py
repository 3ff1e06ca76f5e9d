"""What a run reached: its few big numbers, and a line for each pair of widths and for each run beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

from subfour.ops import FLOAT_BITS
from subfour.profit.alike import network_and_images
from subfour.report.record import RunRecord, WidthResult
from subfour.report.template import scaled

WIDTH_COLUMNS = ("widths", "top-1 %", "top-5 %", "loss", "top-1 % not averaged", "weights MB", "10^9 bit operations")
"""Of `width_row`."""

RUN_COLUMNS = ("run", "method", "quantizer", "seed", "widths", "top-1 %", "state")
"""Of `run_row`."""


@dataclass(frozen=True, slots=True)
class Card:
    """One number of the summary."""

    name: str
    value: str
    beside: Sequence[str]


def summary_cards(record: RunRecord, records: Sequence[RunRecord]) -> list[Card]:
    """Return accuracy, size, bit operations and time, each against float and 8 bit."""
    last, phase = record.last_result, record.phases[-1]
    cards = []
    if last is None:
        cards.append(Card("Top-1", "not known", ["No pair of widths has been trained to its end."]))
    else:
        cards.append(Card(f"Top-1 at {last.name}", f"{last.top1:.2f} %", _accuracy_words(record, records, last)))
    cost, eight, full = (record.cost(*bits) for bits in ((phase.weight_bits, phase.activation_bits), (8, 8), (FLOAT_BITS,) * 2))
    if cost and eight and full:
        for name, unit, ours, at_8, in_float in (
            ("Size", "B", cost.bytes, eight.bytes, full.bytes),
            ("Bit operations per image", "", cost.bops, eight.bops, full.bops),
        ):
            others = [(other, value) for other, value in (("float", in_float), ("8 bit", at_8)) if value > ours]
            beside = [f"{other} {scaled(value, unit)}, {value / ours:.1f} times" for other, value in others]
            cards.append(Card(f"{name} at {phase.widths}", scaled(ours, unit), beside or ["a float network"]))
    if record.metrics:
        minutes, seconds = divmod(round(record.metrics[-1]["seconds"]), 60)
        hours, minutes = divmod(minutes, 60)
        value = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
        cards.append(Card("Training time", value, [f"{len(record.metrics)} of {record.epochs} epochs"]))
    return cards


def _accuracy_words(record: RunRecord, records: Sequence[RunRecord], last: WidthResult) -> list[str]:
    """Compare with float, the better of the float phase and of a float control, and with the widest quantized widths."""
    if last.is_float:
        return ["nothing is quantized yet" if record.status != "finished" else "a float network"]
    floats = [] if record.float_result is None else [(record.float_result.top1, "float phase")]
    for other in records:
        control = other.last_result
        same = network_and_images(other.config) == network_and_images(record.config)
        if same and control is not None and control.is_float and other.status == "finished":
            floats.append((control.top1, "float control"))
    words = []
    if floats:
        best, name = max(floats)
        words.append(f"{name} {best:.2f} %, {abs(best - last.top1):.2f} points {'lost' if best >= last.top1 else 'won'}")
    eight = next((row for row in record.widths if row.weight_bits == 8), None)
    if eight is not None and eight is not last:
        words.append(f"{eight.name} {eight.top1:.2f} % on the way")
    return words


def width_row(record: RunRecord, row: WidthResult) -> list[str]:
    """Return the line of one pair of widths, with what the network costs there."""
    cost = record.cost(row.weight_bits, row.activation_bits)
    costs = ["", ""] if cost is None else [f"{cost.bytes / 1e6:.3g}", f"{cost.bops / 1e9:.3g}"]
    return [row.name, f"{row.top1:.2f}", f"{row.top5:.2f}", f"{row.loss:.3f}", f"{row.raw_top1:.2f}", *costs]


def run_row(record: RunRecord) -> list[str]:
    """Return the line of one run among several."""
    last, config = record.last_result, record.config
    reached = ["", ""] if last is None else [last.name, f"{last.top1:.2f}"]
    return [record.name, config.method, config.quantizer, str(config.seed), *reached, record.status]
