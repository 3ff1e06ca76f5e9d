"""Whether the memory of a run grows from epoch to epoch; the rows go to results/memory.csv.

python benchmarks/bench_memory.py

Runs of about 60 short epochs on the digits, each in a process of its own: float; one width with teacher, sampling and frozen
layers; and the recipe through all its phases. After each epoch the resident set is read from /proc. A line is fitted
through what follows the warm-up: the float phase, or the first 10 epochs where there is no other.
"""

import multiprocessing
import os
import resource
import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from table import RESULTS, provenance, write_rows

from subfour.cli.main import main as subfour
from subfour.cli.observers import Observers

TOTALS = RESULTS / "memory.csv"
COLUMNS = ["date", "cpu", "commit", "run", "options", "epochs", "warmup", "first_mb", "last_mb", "peak_mb", "kb_per_epoch"]

EVERY_RUN = "--schedule.max-steps 8 --average.reestimate-batches 4 --calibration-batches 2 --loading.workers 0"
RUNS = {
    "float": (10, "--schedule.float-epochs 60 --weight-bits 32 --activation-bits 32"),
    "one width": (
        6,
        "--schedule.float-epochs 6 --weight-bits 4 --activation-bits 32 --schedule.finetune-epochs 17",
    ),
    "recipe": (20, ""),
}
"""Name of a run -> epochs of warm-up, options."""


def resident_mb() -> float:
    """Return the resident set of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def watch(options: str, sizes: "multiprocessing.Queue[list[float]]") -> None:
    """Train, and send the resident set after each epoch."""
    seen: list[float] = []
    told = Observers.epoch_done

    def epoch_done(observers: Observers, record: dict[str, Any]) -> None:
        told(observers, record)
        seen.append(resident_mb())

    Observers.epoch_done = epoch_done  # type: ignore[method-assign]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory() as folder:
        subfour(["train", "digits", *shlex.split(f"{EVERY_RUN} {options}"), "--out", f"{folder}/run"])
    sizes.put(seen)


def measured(name: str) -> dict[str, Any]:
    """Return the row of a run."""
    warmup, options = RUNS[name]
    processes = multiprocessing.get_context("spawn")
    sizes: multiprocessing.Queue[list[float]] = processes.Queue()
    process = processes.Process(target=watch, args=(options, sizes))
    process.start()
    seen = sizes.get()
    process.join()
    slope, _ = np.polyfit(range(len(seen) - warmup), seen[warmup:], 1)
    shown = {"run": name, "options": options, "epochs": len(seen), "warmup": warmup, "kb_per_epoch": round(1024 * slope, 1)}
    print(name, " ".join(f"{size:.0f}" for size in seen), flush=True)
    return shown | {"first_mb": round(seen[warmup]), "last_mb": round(seen[-1]), "peak_mb": round(max(seen))}


def main() -> None:
    """Measure, and record."""
    write_rows(TOTALS, COLUMNS, [provenance() | measured(name) for name in RUNS])


if __name__ == "__main__":
    main()
