"""Take finished runs into `results/`: one CSV row per pair of widths, and the model file; then renew the README's table.

python benchmarks/record.py NAME=RUN [NAME=RUN ...]      record runs under these names
python benchmarks/record.py                              only renew the README's table
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from table import RESULTS, read_rows, write_rows

from subfour.profit.tensor_file import pack_tensors, unpack_tensors

ROOT = Path(__file__).parent.parent
ACCURACY = RESULTS / "accuracy.csv"
COLUMNS = [
    *("name", "recipe", "model", "quantizer", "method", "widths", "top1", "top5", "loss", "raw_top1", "bytes"),
    *("seed", "epochs", "minutes", "threads", "cpu", "torch", "commit", "command"),
]
CONTROL = "-float-control"
"""Ends the name of a run's control: `--keep-phases` with every width 32."""
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def rows_of(name: str, run: Path) -> list[dict[str, Any]]:
    """Return the CSV rows of a finished run."""
    result = json.loads((run / "result.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    shared = {key: result[key] for key in ("recipe", "model", "quantizer", "method", "seed", "epochs", "threads")}
    shared |= {"commit": " ".join(result["commits"])}
    shared |= {"name": name, "minutes": round(result["seconds"] / 60), "cpu": environment["cpu"]}
    shared |= {"torch": environment["packages"]["torch"], "command": command_of(environment["command"])}
    return [
        shared
        | {"widths": label(row), "bytes": row["bytes"], "raw_top1": f"{row['raw']['top1']:.2f}"}
        | {key: f"{row['averaged'][key]:.{digits}f}" for key, digits in (("top1", 2), ("top5", 2), ("loss", 4))}
        for row in result["rows"]
    ]


def label(row: dict[str, Any]) -> str:
    """Return a row's widths, and whether it was snapped."""
    return f"{row['widths']} snapped" if row.get("snapped") else str(row["widths"])


def command_of(command: str) -> str:
    """Return the command line without this machine's folders."""
    words = ["subfour", *shlex.split(command)[1:]]
    for option in ("--data", "--out", "--from", "--weights"):
        if option in words:
            index = words.index(option) + 1
            words[index] = without_folders(words[index])
    return shlex.join(words)


def without_folders(value: str) -> str:
    """Return PATH or KIND:PATH without this machine's folders: from the repository on, or the name alone."""
    kind, colon, path = value.rpartition(":")
    inside = Path(path).is_relative_to(ROOT)
    return f"{kind}{colon}{Path(path).relative_to(ROOT) if inside else Path(path).name}"


def published(model: Path) -> bytes:
    """Return a model file whose configuration names nobody's folders."""
    tensors, content = unpack_tensors(model)
    config = content["config"]
    for name in ("data", "weights", "from_run"):
        if config[name] is not None:
            config[name] = without_folders(config[name])
    return pack_tensors(tensors, content)


def record(name: str, run: Path) -> None:
    """Write a run's rows, replacing earlier ones of that name, and keep its model file, unless it is a control."""
    others = [row for row in read_rows(ACCURACY) if row["name"] != name]
    write_rows(ACCURACY, COLUMNS, [*others, *rows_of(name, run)])
    if name.endswith(CONTROL):
        return
    models = RESULTS / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / f"{name}.safetensors").write_bytes(published(run / "model.safetensors"))


def table() -> str:
    """Return the README's table of results, in Markdown: of each run its float network and its last widths."""
    runs: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(ACCURACY):
        runs.setdefault(row["name"], []).append(row)
    if not runs:
        return "No rows yet."
    lines = ["| run | float top-1 % | widths | top-1 % | points lost | weights MB | minutes |", "|---|---|---|---|---|---|---|"]
    for name, rows in runs.items():
        if name.endswith(CONTROL):
            continue
        last, reference = rows[-1], float_top1(rows, runs)
        lost = f"{float(reference) - float(last['top1']):.2f}" if reference else ""
        size = f"{int(last['bytes']) / 1e6:.3f}"
        cells = (name, reference, last["widths"], last["top1"], lost, size, last["minutes"])
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Every pair of widths on the way, with command, commit, seed and hardware: `results/accuracy.csv`."]
    return "\n".join(lines)


def float_top1(rows: list[dict[str, str]], runs: dict[str, list[dict[str, str]]]) -> str:
    """Return the accuracy of the float network that a run's rows began from, also through `--from`; empty if unknown.

    Where there is a control, a float network trained as long with the same teacher, it is that of the better of the two.
    """
    if rows[0]["widths"] == "A32W32":
        trained_on = runs.get(f"{rows[0]['name']}{CONTROL}", [])
        return max((row["top1"] for row in (rows[0], *trained_on) if row["widths"] == "A32W32"), key=float)
    words = shlex.split(rows[0]["command"])
    before = Path(words[words.index("--from") + 1]).name if "--from" in words else ""
    return float_top1(runs[before], runs) if before in runs else ""


def renew_readme() -> None:
    """Put the table between its markers."""
    readme = ROOT / "README.md"
    head, _, rest = readme.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    readme.write_text(f"{head}{BEGIN}\n{table()}\n{END}{tail}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        chosen, _, folder = argument.partition("=")
        record(chosen, Path(folder))
    renew_readme()
