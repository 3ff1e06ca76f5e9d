"""A campaign of SIGKILLs, with counts by what they hit; the totals go to results/kills.csv.

python benchmarks/bench_kills.py [--kills 200] [--seed 0] [--checkpoint-minutes 0.002] [--work FOLDER]

The digits recipe with every one of its phases, cut down to a few steps per epoch after a float network that can read digits, is
trained and exported by the command and left alone once. Then it is started, killed and resumed until it ends, and all that anew
until there were enough kills. A tour through a run takes aim at each kind of phase, at the results and at the export, in their
order; between two of these it kills after a random time, or while a phase changes, an evaluation runs or a checkpoint is written.
What is counted is what a kill did hit.

Weights, model file, exported file, teacher, freeze order, metrics and result of each run must be those of the run that was
left alone. With --work, a campaign that was stopped goes on, and runs that ended differently stay there.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from table import RESULTS, provenance, write_rows
from watched_run import BETWEEN, EXPORTED_FILE, MOMENTS, STAGES, WatchedRun

from subfour.profit.continuation import TEACHER_FILE
from subfour.rundir import RunDirectory

TOTALS = RESULTS / "kills.csv"
COLUMNS = ["date", "cpu", "commit", "command", "seed", "moment", "kills", "runs", "different"]

FLOAT_RECIPE = shlex.split(
    "digits --schedule.batch-size 32 --schedule.float-epochs 8 --weight-bits 32 --activation-bits 8 --method none --no-snap "
    "--schedule.finetune-epochs 0 --schedule.stabilize-epochs 1 --loading.workers 0"
)
"""A float network and one step beyond, where it becomes the teacher."""

SHORT_RECIPE = shlex.split(
    "digits --schedule.max-steps 4 --schedule.float-epochs 1 --schedule.finetune-epochs 1 --schedule.stabilize-epochs 1 "
    "--schedule.sample-epochs 2 --schedule.float-lr 0.01 --schedule.lr 0.01 --average.reestimate-batches 4 "
    "--calibration-batches 2 --loading.workers 0"
)

SHORT_RUN = shlex.split("--weight-bits 4 --activation-bits 4 --schedule.max-steps 1 --schedule.sample-epochs 1")
"""What makes it short enough for a test."""

TIMELESS = {"seconds", "commit", "commits", "dirty"}


class Log:
    """What happened so far, one line each: kills with what they hit, and runs that ended."""

    def __init__(self, file: Path) -> None:
        """Read what an earlier campaign has written."""
        self.file = file
        self.lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def add(self, **line: Any) -> None:
        """Write a line, and show it."""
        self.lines.append(line)
        with self.file.open("a") as file:
            print(json.dumps(line), file=file)
        print(json.dumps(line), flush=True)

    @property
    def hits(self) -> list[str]:
        """What each kill hit."""
        return [line["moment"] for line in self.lines if "moment" in line]

    @property
    def endings(self) -> list[list[str]]:
        """What was different in each run that ended."""
        return [line["different"] for line in self.lines if "different" in line]


def outcome(run: Path) -> dict[str, Any]:
    """Return all that a finished run says but times and commit."""

    def timeless(record: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in record.items() if key not in TIMELESS}

    files = ("weights.safetensors", "model.safetensors", "teacher.safetensors", "sensitivity.json", EXPORTED_FILE)
    return {
        **{name: (run / name).read_bytes() for name in files},
        "metrics": [timeless(record) for record in RunDirectory(run).metrics()],
        "result": timeless(json.loads((run / "result.json").read_text())),
    }


def command(*words: object) -> None:
    """Run `subfour` as a user does."""
    subprocess.run([sys.executable, "-m", "subfour", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def leave_alone(run: Path, options: Sequence[str]) -> float:
    """Train and export, and return the seconds."""
    begin = time.monotonic()
    command("train", *options, "--out", run)
    command("export", run, "--out", run / EXPORTED_FILE)
    return time.monotonic() - begin


def tour(rng: random.Random) -> Iterator[str | None]:
    """Yield what the kills of one run aim at; None: at nothing, after a random time."""
    for stage in STAGES:
        yield rng.choice((None, None, None, *BETWEEN))
        yield stage


def strike(process: WatchedRun, aim: str | None, patience: float, rng: random.Random) -> int:
    """Kill a process, and return its exit code."""
    if aim is None:
        time.sleep(rng.uniform(0, patience))
    else:
        process.wait_for(aim)
        time.sleep(10 ** rng.uniform(-3.5, -0.5))  # log-uniform: what is aimed at takes between a millisecond and a second
    return process.kill()


def campaign(kills: int, options: Sequence[str], checkpoint_minutes: float, seed: int, work: Path) -> Log:
    """Run it, or go on with it, in a folder."""
    log, alone, run = Log(work / "log.jsonl"), work / "alone", work / "run"
    options = [*options, "--checkpoint-minutes", str(checkpoint_minutes)]
    if not log.lines:
        log.add(**provenance(), alone=leave_alone(alone, options))
    patience, expected = log.lines[0]["alone"] / 10, outcome(alone)
    while len(log.hits) < kills or run.exists():
        rng = random.Random(f"{seed} {len(log.hits)}")
        aims = tour(rng)
        while True:
            spent = len(log.hits) >= kills
            aim = None if spent else next(aims, None)
            process = WatchedRun(run, options)
            code = process.ended() if spent else strike(process, aim, patience, rng)
            if code == 0:
                break
            if code != -9:
                raise RuntimeError(f"a run went wrong after {len(log.hits)} kills: exit code {code}")
            log.add(moment=process.moment, aim=aim)
        found = outcome(run)
        different = [name for name, value in expected.items() if found[name] != value]
        log.add(different=different)
        if different:
            run.rename(work / f"different-{len(log.endings)}")
        else:
            shutil.rmtree(run)
    return log


def main() -> None:
    """Run the campaign and record it; exit with 1 if a run ended differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-minutes", type=float, default=0.002)
    parser.add_argument("--work", type=Path, help="where runs and log lie; by default in a folder that is deleted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        weights = work / "float" / TEACHER_FILE
        if not weights.exists():
            command("train", *FLOAT_RECIPE, "--out", work / "float")
        recipe = [*SHORT_RECIPE, "--weights", str(weights)]
        log = campaign(options.kills, recipe, options.checkpoint_minutes, options.seed, work)
    hits, different = log.hits, sum(map(bool, log.endings))
    shared = {key: log.lines[0][key] for key in provenance()} | {"seed": options.seed}
    shared["command"] = f"python benchmarks/bench_kills.py --kills {options.kills} --seed {options.seed}"
    rows = [shared | {"moment": moment, "kills": hits.count(moment)} for moment in MOMENTS]
    rows.append(shared | {"moment": "all", "kills": len(hits), "runs": len(log.endings), "different": different})
    write_rows(TOTALS, COLUMNS, rows)
    print(f"{len(hits)} kills, {len(log.endings)} runs ended, {different} of them differently")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
