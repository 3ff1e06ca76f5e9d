"""A campaign of damaged files, with counts; the totals go to results/faults.csv.

python benchmarks/bench_faults.py [--cases 1600] [--seed 0] [--only "exported file"]

Checkpoints, configs, model files, weights, parquet files, images, folder indexes and exported ONNX files are truncated, have bits
flipped, blocks overwritten, swapped or appended, or are replaced by something hostile; exported files also by ONNX of others, and
by another network's. Each case is read in a process of its own, as the package or its command reads it, with a limit on memory
and time, and ends in one of these ways:

    refused     one line that says what is wrong
    recovered   the checkpoint before is used
    harmless    what was read is what was written; of an exported file, every byte
    unnoticed   another image, label, class name or weight, in a foreign format that keeps no checksum of it
    silent      something else was read, and nobody said so                 must be 0
    traceback   an error of ours, a crash, a hang, a message of several lines,
                or one on an exported file that does not name it            must be 0
    executed    a file that was read has run something                      must be 0
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from faults.campaign import FORBIDDEN, OUTCOMES, campaign
from table import RESULTS, provenance, read_rows, write_rows

TOTALS = RESULTS / "faults.csv"
COLUMNS = ["campaign", "seed", "date", "cpu", "commit", "target", "cases", *OUTCOMES]


def record(name: str, counts: dict[str, Counter[str]], seed: int) -> None:
    """Replace the rows of a campaign's targets in results/faults.csv."""
    shared = {"campaign": name, "seed": seed, **provenance()}
    rows = [
        shared | {"target": target, "cases": count.total()} | {outcome: count[outcome] for outcome in OUTCOMES}
        for target, count in counts.items()
    ]
    others = [row for row in read_rows(TOTALS) if row["campaign"] != name or row["target"] not in counts]
    write_rows(TOTALS, COLUMNS, [*others, *rows])


def main() -> None:
    """Run the campaign and record it; exit with 1 if something happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TEXT", help="targets with it in their name; the rows of others stay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        counts = campaign(options.cases, options.seed, Path(work), only=options.only)
    record("damages", counts, options.seed)
    total = sum(counts.values(), Counter())
    print(f"{total.total()} cases: {dict(total)}")
    sys.exit(any(total[outcome] for outcome in FORBIDDEN))


if __name__ == "__main__":
    main()
