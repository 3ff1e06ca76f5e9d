"""A campaign of SIGKILLs at random moments, with counts; the totals go to results/kills.csv.

python benchmarks/bench_kills.py [--kills 200] [--seed 0] [--checkpoint-minutes 0.05]

The digits recipe with every one of its phases, cut down to about half a minute, is left alone once. Then it is started, killed
after a random time, and resumed, again and again until it ends; and all that anew until there were enough kills. Weights, model
file, teacher, freeze order, metrics and result of each must be those of the run that was left alone. Where a kill came is told
from what the run directory holds: before the first checkpoint, in an epoch, while a file was written, after the last epoch.
"""

import argparse
import json
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from table import RESULTS, provenance, write_rows

from subfour.rundir import RunDirectory

TOTALS = RESULTS / "kills.csv"
COLUMNS = ["date", "cpu", "seed", "commit", "moment", "kills", "runs", "different"]

SUBFOUR = [sys.executable, "-c", "from subfour.cli.main import main; main()"]

SHORT_RECIPE = shlex.split(
    "digits --schedule.max-steps 4 --schedule.float-epochs 2 --schedule.finetune-epochs 1 --schedule.stabilize-epochs 1 "
    "--schedule.sample-epochs 2 --average.reestimate-batches 4 --calibration-batches 2 --loading.workers 0"
)

SHORT_RUN = shlex.split("--weight-bits 4 --activation-bits 4 --schedule.max-steps 1 --schedule.sample-epochs 1")
"""What makes it short enough for a test."""

TIMELESS = {"seconds", "commit", "dirty"}


def outcome(run: Path) -> dict[str, Any]:
    """Return all that a finished run says but times and commit."""

    def timeless(record: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in record.items() if key not in TIMELESS}

    files = ("weights.safetensors", "model.safetensors", "teacher.safetensors", "sensitivity.json")
    return {
        **{name: (run / name).read_bytes() for name in files},
        "metrics": [timeless(record) for record in RunDirectory(run).metrics()],
        "result": timeless(json.loads((run / "result.json").read_text())),
    }


def moment(run: Path) -> str:
    """Return where a kill found a run."""
    if not (run / "config.json").exists():
        return "before the run directory"
    checkpoints = [file.name for file in (run / "checkpoints").glob("*")]
    if any(name.startswith(".") for name in checkpoints) or list(run.glob(".*.tmp")):
        return "while a file was written"
    if not checkpoints:
        return "before the first checkpoint"
    if (run / "weights.safetensors").exists():
        return "while the results were written"
    newest = max(name for name in checkpoints if not name.startswith("."))
    number = int(newest.split("-")[1])
    if len(RunDirectory(run).metrics()) > number:
        return "between metrics and checkpoint"
    return "beyond a step's checkpoint" if "step" in newest else "beyond an epoch's checkpoint"


def train(run: Path, options: list[str], seconds: float | None) -> int:
    """Begin a run, or go on with it; kill it after some seconds. Return the exit code."""
    words = ["--resume", str(run)] if (run / "config.json").exists() else [*options, "--out", str(run)]
    command = [*SUBFOUR, "train", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        assert process.stderr is not None
        if said := process.stderr.read():
            print(said, file=sys.stderr)
    return process.returncode


def campaign(kills: int, options: list[str], checkpoint_minutes: float, seed: int, work: Path) -> tuple[Counter[str], int, int]:
    """Run it.

    Returns:
        The kills by moment, how many runs ended, and how many of them differently.
    """
    rng, counts = random.Random(seed), Counter[str]()
    options = [*options, "--checkpoint-minutes", str(checkpoint_minutes)]
    alone = work / "alone"
    begin = time.monotonic()
    if train(alone, options, None):
        raise RuntimeError("the run that is left alone did not end")
    duration, expected = time.monotonic() - begin, outcome(alone)
    runs = different = 0
    while counts.total() < kills:
        run = work / "run"
        while True:
            # Half a run at most, the start included: most are killed several times before they end.
            seconds = rng.uniform(0, duration / 2) if counts.total() < kills else None
            code = train(run, options, seconds)
            if code == 0:
                break
            if code != -9:
                raise RuntimeError(f"a run went wrong after {counts.total()} kills: exit code {code}")
            counts[moment(run)] += 1
            print(f"kill {counts.total()}: {moment(run)}", flush=True)
        runs += 1
        different += outcome(run) != expected
        shutil.rmtree(run)
    return counts, runs, different


def main() -> None:
    """Run the campaign and record it; exit with 1 if a run ended differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-minutes", type=float, default=0.05)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        counts, runs, different = campaign(options.kills, SHORT_RECIPE, options.checkpoint_minutes, options.seed, Path(work))
    shared = {"seed": options.seed, **provenance()}
    rows = [shared | {"moment": name, "kills": count} for name, count in sorted(counts.items())]
    rows.append(shared | {"moment": "all", "kills": counts.total(), "runs": runs, "different": different})
    write_rows(TOTALS, COLUMNS, rows)
    print(f"{counts.total()} kills: {dict(counts)}; {runs} runs ended, {different} of them differently")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
