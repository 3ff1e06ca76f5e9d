"""Records of runs that never were, for the tests of what is said about them."""

from pathlib import Path
from typing import Any

from subfour.data.preprocess import Preprocessing
from subfour.ops import FLOAT_BITS
from subfour.profit.data_record import DataRecord
from subfour.profit.phases import build_phases
from subfour.recipes import load_recipe
from subfour.report.record import RunRecord

CONFIG = load_recipe("digits")
PREPROCESSING = Preprocessing(image_size=32, resize_size=32, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def row(widths: tuple[int, int], top1: float) -> dict[str, Any]:
    accuracy = {"top1": top1, "top5": 100.0, "loss": 0.1}
    return {"activation_bits": widths[0], "weight_bits": widths[1], "averaged": accuracy, "raw": accuracy}


FLOAT = row((FLOAT_BITS, FLOAT_BITS), 90.0)


def epoch(loss: float = 0.1, **ranges: float) -> dict[str, Any]:
    logged = {name.replace("_", "."): {"activation": [value, value]} for name, value in ranges.items()}
    return {"phase": 0, "kind": "float", "epoch": 0, "train_loss": loss, "raw": {"loss": loss}, "ranges": logged}


def record(**changes: Any) -> RunRecord:
    """Return a finished run without a fault, but for the changes."""
    sound: dict[str, Any] = {
        "path": Path("runs/mine"),
        "name": "mine",
        "config": CONFIG,
        "phases": build_phases(CONFIG),
        "metrics": [epoch(a_b=1.0, c_d=1.0), epoch(a_b=1.1, c_d=0.9)],
        "environment": {},
        "data": DataRecord(classes=tuple("0123456789"), preprocessing=PREPROCESSING),
        "result": {"rows": [FLOAT, row((4, 4), 89.0)], "padding_top1": {"before": 80.0, "after": 60.0, "after_float": 90.0}},
        "sensitivity": [{"name": "a.b", "dropped": 0.1}],
        "failure": None,
        "chance": 10.0,
    }
    return RunRecord(**(sound | changes))
