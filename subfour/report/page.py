"""The report as one HTML file that needs no network, with its figures beside it as SVG and CSV."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from subfour.profit.alike import data_name
from subfour.report.diagnosis import diagnose
from subfour.report.exhibits.costs import cost_exhibit, tradeoff_exhibit
from subfour.report.exhibits.exhibit import Exhibit
from subfour.report.exhibits.instability import freezing_exhibit, instability_exhibit
from subfour.report.exhibits.losses import profit_exhibit, quantizer_exhibit
from subfour.report.exhibits.quantizers import code_exhibit, error_exhibit, histogram_exhibit
from subfour.report.exhibits.ranges import range_exhibit
from subfour.report.network import NetworkLook, look
from subfour.report.record import RunRecord, named_apart, read_record
from subfour.report.summary import RUN_COLUMNS, WIDTH_COLUMNS, run_row, summary_cards, width_row
from subfour.report.template import shown, write_page
from subfour.report.timeline import LEGEND, PHASE_COLUMNS, phase_row, timeline

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

MOODS = {"finished": "good", "unfinished": "warn", "not begun": "warn", "collapsed": "bad"}


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
    records = named_apart([read_record(path) for path in runs])
    main = records[0]
    network = look(main)
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
    write_page(
        "page.html",
        out,
        exhibits,
        figures or out.with_name(f"{out.stem}_figures"),
        sections=SECTIONS,
        **_head(main),
        cards=summary_cards(main, records),
        width_columns=WIDTH_COLUMNS,
        widths=[width_row(main, row) for row in main.widths],
        run_columns=RUN_COLUMNS,
        runs=[run_row(record) for record in records] if len(records) > 1 else [],
        findings=diagnose(main, network.samples),
        not_looked=network.reason,
        timeline=timeline(main),
        legend=LEGEND,
        phase_columns=PHASE_COLUMNS,
        phases=[phase_row(main, index) for index in range(len(main.phases))],
        training=training,
        layers=layers,
        tradeoff=tradeoff,
        tradeoff_columns=tradeoff.columns,
        tradeoff_rows=[[shown(cell) for cell in row] for row in tradeoff.rows],
        mistakes=network.mistakes,
        mistakes_words=_mistakes_words(network),
    )
    return exhibits


def _head(record: RunRecord) -> dict[str, Any]:
    config, environment = record.config, record.environment
    done, last = len(record.metrics), record.metrics[-1] if record.metrics else None
    where = "" if last is None else f" It stands in phase {last['phase'] + 1} of {len(record.phases)}, {last['kind']}."
    words = {
        "finished": f"{record.epochs} epochs in {len(record.phases)} phases.",
        "collapsed": f"{done} of {record.epochs} epochs, then training collapsed; see the diagnosis.",
        "unfinished": f"{done} of {record.epochs} epochs are done.{where}",
        "not begun": f"None of its {record.epochs} epochs is done.",
    }[record.status]
    network = config.model.partition("/")[2]
    facts = [
        ("run directory", record.path),
        ("begun", environment.get("date", "not known")),
        ("commit", _commit(environment)),
        *((f"gone on {place.get('date', '')}", f"commit {_commit(place)}") for place in environment.get("resumed", [])),
        ("seed", config.seed),
        ("threads", (record.result or {}).get("threads", "not known yet")),
        ("processor", f"{environment.get('cpu', 'not known')}, {environment.get('cores', '?')} cores"),
        ("system", environment.get("platform", "not known")),
        ("Python", environment.get("python", "not known")),
        *((name, number) for name, number in environment.get("packages", {}).items() if number),
    ]
    return {
        "title": f"subfour report: {record.name}",
        "heading": f"{network} on {data_name(config.data)}",
        "what": f"Run {record.name}, recipe {config.recipe}: {config.quantizer} quantizers, trained with {record.method}, "
        f"teacher {config.teacher}.",
        "status": {"name": record.status, "mood": MOODS[record.status], "words": words},
        "command": _command(environment),
        "facts": facts,
        "run_name": record.name,
    }


def _commit(place: Mapping[str, Any]) -> str:
    git = place.get("git")
    return f"{git['commit']}{', with changes' if git['dirty'] else ''}" if git else "not known"


def _command(environment: Mapping[str, Any]) -> str:
    """Return what began the run, as one would type it anywhere."""
    words = shlex.split(environment.get("command", ""))
    if not words:
        return "The run does not know its command."
    program = Path(words[0])
    ours = program.stem == "subfour" or (program.name, program.parent.name) == ("__main__.py", "subfour")
    return shlex.join([*(["subfour"] if ours else ["python", words[0]]), *words[1:]])


def _mistakes_words(network: NetworkLook) -> str:
    if not network.images:
        return network.reason
    if not network.wrong:
        return f"None among {network.images} validation images."
    shown = f"; the {len(network.mistakes)} that it is surest of" if network.wrong > len(network.mistakes) else ""
    return f"{network.wrong} of {network.images} validation images, evenly spaced{shown}. In brackets: how sure it is."
