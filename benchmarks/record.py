"""Take finished runs into `results/`: one CSV row per pair of widths, and the model file; then renew the documents' tables.

python benchmarks/record.py NAME=RUN [NAME=RUN ...]      record runs under these names
python benchmarks/record.py                              only renew the documents' tables
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from documents import ACCURACY, CONTROL, ROOT, renew_tables
from table import RESULTS, read_rows, write_rows

from subfour.tensor_file import pack_tensors, unpack_tensors

COLUMNS = [
    *("name", "recipe", "model", "quantizer", "method", "widths", "top1", "top5", "loss", "raw_top1", "bytes"),
    *("seed", "epochs", "minutes", "threads", "cpu", "torch", "commit", "command"),
]


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


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        chosen, _, folder = argument.partition("=")
        record(chosen, Path(folder))
    renew_tables()
