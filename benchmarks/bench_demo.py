"""Where the time of `make demo` goes: a row per part in results/demo.csv.

python benchmarks/bench_demo.py [--pip-args ARGS] [--out FILE.csv]

A fresh clone of this repository runs the commands of `make demo` one after another, each timed by the clock on the wall. What the
training's time consists of comes from its own metrics: each kind of phase, with evaluations and checkpoints. Of the rest,
`images` is reading them and building the network, measured apart, and `start and end` what remains.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from table import RESULTS, provenance, write_rows

ROOT = Path(__file__).parent.parent

COLUMNS = ["part", "seconds", "threads", "date", "cpu", "commit"]

PREPARES = """
import time
from subfour.profit.session import prepare_session
from subfour.recipes import load_recipe
begin = time.perf_counter()
prepare_session(load_recipe("digits"))
print(time.perf_counter() - begin)
"""


def seconds_of(command: list[str], place: Path) -> float:
    """Run a command; return how long it took."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def phase_seconds(run: Path) -> dict[str, float]:
    """Return the seconds of each kind of phase, in the order of their first ones."""
    seconds: dict[str, float] = defaultdict(float)
    before = 0.0
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        seconds[record["kind"]] += record["seconds"] - before
        before = record["seconds"]
    return dict(seconds)


def demo(clone: Path, pip_args: str) -> tuple[dict[str, float], int]:
    """Run the demo in a clone; return the seconds of its parts, and the threads of its training."""
    install = seconds_of(["make", ".venv/train-installed", f"PYTHON={sys.executable}", f"PIP_ARGS={pip_args}"], clone)
    python, run = clone / ".venv" / "bin" / "python", clone / "runs" / "digits"
    train = seconds_of([str(python), "-m", "subfour", "train", "digits", "--out", str(run)], clone)
    phases, result = phase_seconds(run), json.loads((run / "result.json").read_text())
    images = float(subprocess.run([python, "-c", PREPARES], cwd=clone, check=True, capture_output=True).stdout)
    rest = train - sum(phases.values())
    report = seconds_of([str(python), "-m", "subfour", "report", str(run)], clone)
    parts = {"install": install, "images": images, "start and end": rest - images, **phases, "report": report}
    return parts, result["threads"]


def main() -> None:
    """Print and write the parts; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pip-args", default="")
    parser.add_argument("--out", type=Path, default=RESULTS / "demo.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "subfour"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        parts, threads = demo(clone, options.pip_args)
    for part, seconds in parts.items():
        print(f"{part:14} {seconds:8.1f}")
    shared = provenance() | {"threads": threads}
    write_rows(options.out, COLUMNS, ({"part": part, "seconds": f"{seconds:.1f}"} | shared for part, seconds in parts.items()))


if __name__ == "__main__":
    main()
