"""Rows of a study whose runs are files that nobody trained: numbers by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from subfour.profit.comparison import Outcome, compare_rows, points_lost
from subfour.profit.config import RunConfig
from subfour.recipes import load_recipe
from subfour.report.record import read_record
from subfour.report.study import StudyRow

DIGITS = load_recipe("digits")


def config_of(bits: int, **changes: Any) -> RunConfig:
    """Return the configuration of a row at one width."""
    return replace(DIGITS, weight_bits=(bits,), activation_bits=(bits,), **({"method": "none", "snap": False} | changes))


def write_run(path: Path, config: RunConfig, top1: float, losses: Sequence[float] = (), kinds: Sequence[str] = ()) -> None:
    """Write what a finished run leaves behind.

    Args:
        path: its directory.
        config: of the run.
        top1: at the last widths; the loss is that of the other answers, 1 - top1 / 100.
        losses: validation losses where layers are frozen, one per epoch.
        kinds: of the layers by AIWQ, the most unstable first.
    """
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config.to_json()))
    accuracy = {"top1": top1, "top5": 100.0, "loss": 1 - top1 / 100, "images": 100}
    bits = {"weight_bits": config.weight_bits[-1], "activation_bits": config.activation_bits[-1]}
    widths = f"A{bits['activation_bits']}W{bits['weight_bits']}"
    row = {"widths": widths, **bits, "raw": accuracy, "averaged": accuracy, "bytes": 50_000, "snapped": False}
    told = {name: getattr(config, name) for name in ("recipe", "data", "model", "quantizer", "method", "seed")}
    (path / "result.json").write_text(json.dumps(told | {"rows": [row], "padding_top1": {}, "seconds": 90.0, "epochs": 9}))
    records = [{"phase": 0, "kind": "sample", "raw": {"loss": 1.0}}]
    records += [{"phase": 2, "kind": "finetune", "raw": {"loss": loss}} for loss in losses]  # the first that freezes layers
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if kinds:
        layers = [{"name": f"layer.{place}", "kind": kind, "aiwq": 1.0, "dropped": 0.0} for place, kind in enumerate(kinds)]
        (path / "sensitivity.json").write_text(json.dumps(layers))


def study_row(
    folder: Path,
    name: str,
    config: RunConfig,
    top1: Sequence[float | None],
    *,
    floats: Sequence[float] = (),
    losses: Mapping[int, Sequence[float]] | None = None,
    kinds: Sequence[str] = (),
    missing: Sequence[int] = (),
) -> StudyRow:
    """Return a row with a run per seed; None stands for one that diverged.

    Args:
        folder: of the study.
        name: of the row.
        config: of its runs.
        top1: by seed.
        floats: of the float network, by seed; none: no points are lost.
        losses: seed -> validation losses after sampling.
        kinds: of the layers by AIWQ.
        missing: seeds that have not run.
    """
    outcomes: dict[int, Outcome] = dict.fromkeys(missing, "missing")
    for seed, value in enumerate(top1):
        path = folder / name / f"seed-{seed}"
        outcomes[seed] = "diverged"
        if value is not None:
            write_run(path, replace(config, seed=seed), value, (losses or {}).get(seed, ()), kinds)
            outcomes[seed] = json.loads((path / "result.json").read_text())
    rows: dict[str, dict[int, Outcome]] = {name: outcomes, "float": {}}
    for seed, value in enumerate(floats):
        rows["float"][seed] = {"rows": [{"averaged": {"top1": value, "loss": 0.0}, "widths": "A32W32", "bytes": 0}], "seconds": 0}
    float_rows = {name: ["float"], "float": ["float"]}
    return StudyRow(
        name=name,
        config=config,
        numbers=compare_rows(rows, float_rows)[0],
        lost=points_lost(rows, ["float"], name),
        records={seed: read_record(folder / name / f"seed-{seed}") for seed, value in enumerate(top1) if value is not None},
        diverged={seed: "the loss is nan" for seed, value in enumerate(top1) if value is None},
        missing=missing,
        command=f"subfour train digits --seed 0 --out {name}",
    )


def rows_of_every_kind(folder: Path) -> list[StudyRow]:
    """Two rows that are finished, one that diverged, one that has not run, one that is half done."""
    floats = [92.0, 92.0]
    return [
        study_row(folder, "float", config_of(32), [92.0, 92.0], floats=floats),
        study_row(folder, "duq-w4a4", config_of(4), [91.0, 92.0], floats=floats),
        study_row(folder, "lsq-w4a4", config_of(4, quantizer="lsq"), [89.0, 91.0], floats=floats),
        study_row(folder, "wild-w4a4", config_of(4, quantizer="dsq"), [None], floats=floats),
        study_row(folder, "late-w2a2", config_of(2), [], floats=floats, missing=[0, 1]),
        study_row(folder, "half-w2a2", config_of(2, quantizer="lsq"), [80.0], floats=floats, missing=[1]),
    ]
