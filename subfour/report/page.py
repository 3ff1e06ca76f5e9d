"""The report as one HTML file that needs no network, with its figures beside it as SVG and CSV."""

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from subfour.analysis.figures import inline
from subfour.ops import FLOAT_BITS
from subfour.profit.phases import Phase
from subfour.report.diagnosis import diagnose
from subfour.report.exhibits import (
    Exhibit,
    code_exhibit,
    cost_exhibit,
    error_exhibit,
    freezing_exhibit,
    histogram_exhibit,
    instability_exhibit,
    profit_exhibit,
    quantizer_exhibit,
    range_exhibit,
    tradeoff_exhibit,
)
from subfour.report.network import NetworkLook, look
from subfour.report.record import RunRecord, WidthResult, read_record
from subfour.rundir import write_atomically

SECTIONS = (
    ("summary", "Summary"),
    ("diagnosis", "Diagnosis"),
    ("phases", "Phases"),
    ("training", "Training"),
    ("layers", "Layers"),
    ("tradeoff", "Accuracy against cost"),
    ("mistakes", "Misclassified images"),
    ("reproduce", "Reproduce"),
)

LEGEND = (
    ("float", "float", "no quantization"),
    ("stabilize", "s", "stabilize: batch norm and ranges"),
    ("finetune", "f", "finetune: everything"),
    ("sample", "a", "sample AIWQ, everything trains"),
    ("frozen", "1/3", "finetune, that share of the layers frozen"),
    ("snap", "d", "snap: the constants of deployment"),
)

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))

MOODS = {"finished": "good", "cut off": "warn", "not begun": "warn", "not finite": "bad"}


@dataclass(frozen=True, slots=True)
class Card:
    """One number of the summary."""

    name: str
    value: str
    beside: Sequence[str]


def write_report(runs: Sequence[Path], out: Path, figures: Path | None = None) -> list[Exhibit]:
    """Write the page and its figures, and return what is on it.

    Args:
        runs: run directories; the first one is told in full, the others are compared with it.
        out: the page.
        figures: folder for the SVG and CSV files; by default beside the page, named after it.

    Raises:
        ValueError: a path is no run directory, or a file in it is damaged.
        OSError: a file cannot be written.
    """
    records = [read_record(path) for path in runs]
    main = records[0]
    network = look(main)
    folder = figures or out.with_name(f"{out.stem}_figures")
    training = [profit_exhibit(records), quantizer_exhibit(records)]
    layers = [
        instability_exhibit(main),
        freezing_exhibit(main),
        histogram_exhibit(network.samples, network.reason),
        error_exhibit(network.samples, network.reason),
        code_exhibit(network.samples, network.reason),
        range_exhibit(main),
        cost_exhibit(main),
    ]
    tradeoff = tradeoff_exhibit(records)
    exhibits = [*training, *layers, tradeoff]
    folder.mkdir(parents=True, exist_ok=True)
    for exhibit in exhibits:
        if exhibit.svg:
            write_atomically(folder / f"{exhibit.key}.svg", exhibit.svg.encode())
            write_atomically(folder / f"{exhibit.key}.csv", exhibit.csv.encode())
    page = _render(
        **_head(main),
        cards=_cards(main, records),
        width_columns=("widths", "top-1 %", "top-5 %", "loss", "raw top-1 %", "size MB", "G BOPS"),
        widths=[_width_row(main, row) for row in main.widths],
        run_columns=("run", "method", "quantizer", "seed", "widths", "top-1 %", "state"),
        runs=[_run_row(record) for record in records] if len(records) > 1 else [],
        findings=diagnose(main, network.samples),
        not_looked=network.reason,
        timeline=_timeline(main),
        legend=LEGEND,
        phase_columns=("phase", "kind", "widths", "epochs", "done", "frozen", "layers frozen", "top-1 %"),
        phases=[_phase_row(main, index) for index in range(len(main.phases))],
        training=training,
        layers=layers,
        tradeoff=tradeoff,
        tradeoff_columns=tradeoff.columns,
        tradeoff_rows=[[_shown(cell) for cell in row] for row in tradeoff.rows],
        mistakes=network.mistakes,
        mistakes_words=_mistakes_words(network),
        figures=os.path.relpath(folder, out.parent).replace(os.sep, "/"),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode())
    return exhibits


def _render(**values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("subfour.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda svg: Markup(inline(svg))  # our own SVG; matplotlib escapes its text
    return environment.get_template("page.html").render(sections=SECTIONS, **values)


def _head(record: RunRecord) -> dict[str, Any]:
    config, environment = record.config, record.environment
    done, last = len(record.metrics), record.metrics[-1] if record.metrics else None
    where = "" if last is None else f" It stands in phase {last['phase'] + 1} of {len(record.phases)}, {last['kind']}."
    words = {
        "finished": f"{record.epochs} epochs in {len(record.phases)} phases.",
        "not finite": f"{done} of {record.epochs} epochs, then a loss or a weight was not finite.",
        "cut off": f"{done} of {record.epochs} epochs are done.{where}",
        "not begun": f"None of its {record.epochs} epochs is done.",
    }[record.status]
    network = config.model.partition("/")[2]
    words_of_command = shlex.split(environment.get("command", ""))
    git = environment.get("git") or {}
    commit = f"{git['commit']}{', with changes' if git['dirty'] else ''}" if git else "not known"
    facts = [
        ("run directory", record.path),
        ("begun", environment.get("date", "not known")),
        ("commit", commit),
        ("seed", config.seed),
        ("threads", (record.result or {}).get("threads", "not known yet")),
        ("processor", f"{environment.get('cpu', 'not known')}, {environment.get('cores', '?')} cores"),
        ("system", environment.get("platform", "not known")),
        ("Python", environment.get("python", "not known")),
        *((name, number) for name, number in environment.get("packages", {}).items() if number),
    ]
    method = "PROFIT" if config.method == "profit" else "the same phases with nothing frozen"
    return {
        "title": f"subfour report: {record.name}",
        "heading": f"{network} on {config.data}",
        "what": f"Run {record.name}, recipe {config.recipe}: {config.quantizer} quantizers, {method}, teacher {config.teacher}.",
        "status": {"name": record.status, "mood": MOODS[record.status], "words": words},
        "command": shlex.join(["subfour", *words_of_command[1:]]) if words_of_command else "The run does not know its command.",
        "facts": facts,
        "folder": record.name,
        "version": version("subfour"),
    }


def _cards(record: RunRecord, records: Sequence[RunRecord]) -> list[Card]:
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
            beside = [f"{other} {_scaled(value, unit)}, {value / ours:.1f} times" for other, value in others]
            cards.append(Card(f"{name} at {phase.widths}", _scaled(ours, unit), beside or ["a float network"]))
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
        same = (other.config.model, other.config.data) == (record.config.model, record.config.data)
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


def _width_row(record: RunRecord, row: WidthResult) -> list[str]:
    cost = record.cost(row.weight_bits, row.activation_bits)
    costs = ["", ""] if cost is None else [f"{cost.bytes / 1e6:.3g}", f"{cost.bops / 1e9:.3g}"]
    return [row.name, f"{row.top1:.2f}", f"{row.top5:.2f}", f"{row.loss:.3f}", f"{row.raw_top1:.2f}", *costs]


def _run_row(record: RunRecord) -> list[str]:
    last, config = record.last_result, record.config
    reached = ["", ""] if last is None else [last.name, f"{last.top1:.2f}"]
    return [record.name, config.method, config.quantizer, str(config.seed), *reached, record.status]


def _phase_state(record: RunRecord, index: int) -> tuple[str, int]:
    """Return whether a phase is done, in progress or to come, and how many of its epochs are done."""
    done = sum(epoch["phase"] == index for epoch in record.metrics)
    if done == record.phases[index].epochs:
        return "done", done
    return ("now" if done else "todo"), done


def _timeline(record: RunRecord) -> list[Mapping[str, Any]]:
    blocks: list[Mapping[str, Any]] = []
    numbered = enumerate(record.phases)
    for widths, group in groupby(numbered, key=lambda item: item[1].widths):
        phases = list(group)
        blocks.append(
            {
                "widths": "float" if widths == "A32W32" else widths,
                "epochs": sum(phase.epochs for _, phase in phases),
                "phases": [_timeline_entry(record, index, phase) for index, phase in phases],
            }
        )
    return blocks


def _timeline_entry(record: RunRecord, index: int, phase: Phase) -> Mapping[str, Any]:
    state, done = _phase_state(record, index)
    letters = {"float": "float", "stabilize": "s", "sample": "a", "finetune": "f", "snap": "d"}
    frozen = f", {phase.frozen} of the layers frozen" if phase.frozen else ""
    progress = {"done": "done", "now": f"{done} done", "todo": "to come"}[state]
    return {
        "look": "frozen" if phase.frozen else phase.kind,
        "letter": str(phase.frozen) if phase.frozen else letters[phase.kind],
        "epochs": phase.epochs,
        "state": state,
        "words": f"phase {index + 1}: {phase.kind}{frozen}, {phase.epochs} epochs, {progress}",
    }


def _phase_row(record: RunRecord, index: int) -> list[str]:
    phase = record.phases[index]
    epochs = [epoch for epoch in record.metrics if epoch["phase"] == index]
    last = epochs[-1] if epochs else None
    return [
        str(index + 1),
        phase.kind,
        phase.widths,
        str(phase.epochs),
        str(len(epochs)),
        str(phase.frozen) if phase.frozen else "",
        "" if last is None or not last["frozen_layers"] else str(last["frozen_layers"]),
        "" if last is None else _shown(last["averaged"]["top1"]),
    ]


def _mistakes_words(network: NetworkLook) -> str:
    if not network.images:
        return network.reason
    if not network.wrong:
        return f"None among {network.images} validation images."
    shown = f"; the {len(network.mistakes)} that it is surest of" if network.wrong > len(network.mistakes) else ""
    return f"{network.wrong} of {network.images} validation images, evenly spaced{shown}. In brackets: how sure it is."


def _scaled(value: float, unit: str) -> str:
    """Return a number with three digits and the prefix that fits."""
    factor, prefix = next((factor, prefix) for factor, prefix in PREFIXES if value >= factor)
    return f"{value / factor:.3g} {prefix}{unit}".rstrip()


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "not finite"
    return str(value)
