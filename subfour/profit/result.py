"""What a run leaves behind: a model file at each pair of widths; at its end the last one, the float weights, `result.json`."""

import shlex
from typing import Any

from subfour.analysis.cost import model_bytes
from subfour.convert.calibrate import set_bits
from subfour.environment import ENVIRONMENT_FILE, commits
from subfour.json_shape import Shape
from subfour.layers import quant_layers
from subfour.models.weights import float_file
from subfour.ops import widths_key
from subfour.profit.continuation import TEACHER_FILE, WEIGHTS_FILE
from subfour.profit.freezing import frozen_layers
from subfour.profit.model_file import MODEL_FILE, pack_model
from subfour.profit.phases import Phase, build_phases
from subfour.profit.session import Session
from subfour.profit.state import RunState
from subfour.profit.state_dict import without_quantizers
from subfour.rundir import RESULT_FILE, RunDirectory
from subfour.train.average import WeightAverage

SENSITIVITY_FILE = "sensitivity.json"
"""AIWQ per layer; written whenever a sampling phase has ended."""

MODELS = "models"
"""Folder of the networks at the widths that a run has passed, each a model file like the last one."""

ACCURACY: Shape = {"top1": float, "top5": float, "loss": float}

RESULT: Shape = {
    **dict.fromkeys(("recipe", "data", "model", "quantizer", "method"), str),
    **dict.fromkeys(("seed", "epochs"), int),
    "rows": [{"weight_bits": int, "activation_bits": int, "raw": ACCURACY, "averaged": ACCURACY, "bytes": float}],
    "padding_top1": dict,
    "seconds": float,
}
"""What readers of result.json need."""

SENSITIVITY: Shape = [{"name": str, "kind": str, "aiwq": float, "dropped": float}]
"""What readers of sensitivity.json need."""


def read_result(run: RunDirectory) -> dict[str, Any]:
    """Return the content of result.json.

    Raises:
        ValueError: it is missing or damaged.
    """
    result: dict[str, Any] = run.read_json(RESULT_FILE, RESULT)
    return result


def read_sensitivity(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the content of sensitivity.json.

    Raises:
        ValueError: it is missing or damaged.
    """
    layers: list[dict[str, Any]] = run.read_json(SENSITIVITY_FILE, SENSITIVITY)
    return layers


def write_result(session: Session, run: RunDirectory, state: RunState) -> dict[str, Any]:
    """Write the files of a finished run and return the content of result.json.

    Args:
        session: its model has the final averaged weights loaded, at the final widths.
        run: the run's directory.
        state: the final state.
    """
    config, model = session.config, session.model
    last = build_phases(config)[-1]
    sizes = {}
    for row in state.rows:
        set_bits(model, row["weight_bits"], row["activation_bits"])
        sizes[row["widths"]] = model_bytes(model)
    set_bits(model, last.weight_bits, last.activation_bits)
    weights = model.state_dict()
    kept = without_quantizers(weights) if config.ends_float else weights
    run.write_bytes(WEIGHTS_FILE, float_file(kept, session.data.preprocessing))
    packed = pack_model(
        model,
        config,
        session.data,
        weight_bits=last.weight_bits,
        activation_bits=last.activation_bits,
        snapping=state.snapping,
    )
    run.write_bytes(MODEL_FILE, packed)
    git = run.read_json(ENVIRONMENT_FILE)["git"] or {}
    result: dict[str, Any] = {
        "recipe": config.recipe,
        "data": config.data,
        "seed": config.seed,
        "commit": git.get("commit"),
        "commits": commits(run),
        "dirty": git.get("dirty"),
        "model": config.model,
        "quantizer": config.quantizer,
        "method": config.method,
        "weight_bits": last.weight_bits,
        "activation_bits": last.activation_bits,
        "rows": [row | {"bytes": sizes[row["widths"]]} for row in state.rows],
        "padding_top1": state.padding_top1,
        "unreadable": {"count": len(state.unreadable), "images": state.unreadable},
        "epochs": sum(phase.epochs for phase in build_phases(config)),
        "seconds": state.seconds,
        "threads": state.threads,
        "workers": state.workers,
        "classes": list(session.data.classes),
    }
    run.write_json(RESULT_FILE, result)
    return result


def keep_model(session: Session, run: RunDirectory, average: WeightAverage, phase: Phase) -> None:
    """Write the averaged network of a pair of widths as a model file of its own, as narrower ones are still to come.

    Args:
        session: its model is at these widths.
        run: the run's directory.
        average: of the weights.
        phase: the last one at these widths.
    """
    if not run.writes:
        return
    config, data, weight_bits, activation_bits = session.config, session.data, phase.weight_bits, phase.activation_bits
    with average.lent():
        packed = pack_model(session.model, config, data, weight_bits=weight_bits, activation_bits=activation_bits)
    (run.path / MODELS).mkdir(exist_ok=True)
    run.write_bytes(f"{MODELS}/{phase.widths}.safetensors", packed)


def what_is_kept(run: RunDirectory) -> str:
    """Return in words what a run leaves that can lead nowhere any more."""
    kept = ["the epochs before it are kept"]
    if (teacher := run.path / TEACHER_FILE).exists():
        kept.append(f"the float network, for --weights {shlex.quote(str(teacher))}")
    if (models := run.path / MODELS).exists():
        kept.append(f"the networks at the widths passed, in {models}")
    return ", and ".join(kept)


def result_row(
    weight_bits: int, activation_bits: int, raw: dict[str, Any], averaged: dict[str, Any], *, snapped: bool = False
) -> dict[str, Any]:
    """Return what result.json says of a pair of widths: accuracy with the raw weights and with the averaged ones."""
    return {
        "widths": widths_key(weight_bits, activation_bits),
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "snapped": snapped,
        "raw": raw,
        "averaged": averaged,
    }


def sensitivity_table(session: Session, state: RunState) -> list[dict[str, Any]]:
    """Return one row per sampled layer, the most unstable first: name, kind, AIWQ, first phase in which it was frozen.

    Phases count from 0, as in plan.json; null stands for a layer that was never frozen.
    """
    phases = build_phases(session.config)
    layers = quant_layers(session.model)
    first: dict[str, int] = {}
    for index, phase in enumerate(phases):
        for name in frozen_layers(state.freeze_order, phase.frozen):
            first.setdefault(name, index)
    return [
        {
            "name": name,
            "kind": layers[name].kind,
            "aiwq": state.instability[name],
            "dropped": state.dropped[name],
            "frozen_in_phase": first.get(name),
        }
        for name in state.instability
    ]
