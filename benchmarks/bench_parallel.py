"""Digits with 1, 2 and 4 workers, and with two network namespaces as two hosts; the rows go to results/parallel.csv.

python benchmarks/bench_parallel.py [--out DIR]

The digits recipe at one width, with each of its kinds of phases. One worker is what the others are compared with: layers frozen,
accuracy, and the training loss epoch by epoch. Training magnifies the order of sums; by how much, one worker with two threads
shows, where nothing else differs. Codes of activations magnify it at once: one that rounds the other way changes a fifth of those
behind it. So the freeze order is compared after a few steps, too, with weights alone in codes. All run the plain engine, which
several workers with one batch norm need.

The two hosts are namespaces joined by a pair of virtual cables; each runs `torchrun --nnodes 2`, as a cluster would, and they
share a file system. The worker of the second one is killed with SIGKILL on the way, the time until both hosts have stopped is
taken, and the run resumes; it must end bit for bit like two workers on one machine. Needs root, and iproute2.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from table import RESULTS, provenance, write_rows

from subfour.profit.freezing import frozen_layers
from subfour.rundir import RunDirectory

TOTALS = RESULTS / "parallel.csv"

RECIPE = shlex.split(
    "digits --weight-bits 4 --activation-bits 4 --schedule.float-epochs 12 --schedule.finetune-epochs 2 --loading.workers 0 "
    "--engine plain"
)

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]

HOSTS = {"subfour-a": "10.77.0.1", "subfour-b": "10.77.0.2"}
"""Network namespace -> its address."""

PORT = 29477

FEW_STEPS = shlex.split(
    "digits --weight-bits 4 --activation-bits 32 --schedule.float-epochs 1 --schedule.finetune-epochs 0 --no-snap "
    "--schedule.stabilize-epochs 0 --schedule.sample-epochs 1 --schedule.max-steps 8 --loading.workers 0 --engine plain"
)
"""In float, then sampling: the freeze order before training has magnified anything."""

KILLED_AFTER = 5
"""Epochs."""


def ip(*words: str) -> None:
    """Call iproute2."""
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def two_hosts() -> Iterator[None]:
    """Make the namespaces and the cable between them; take them away again."""
    first, second = HOSTS
    for host in HOSTS:
        ip("netns", "add", host)
    try:
        ip("link", "add", "eth-a", "netns", first, "type", "veth", "peer", "name", "eth-b", "netns", second)
        for host, cable in zip(HOSTS, ("eth-a", "eth-b"), strict=True):
            ip("-n", host, "addr", "add", f"{HOSTS[host]}/24", "dev", cable)
            for device in ("lo", cable):
                ip("-n", host, "link", "set", device, "up")
        yield
    finally:
        for host in HOSTS:
            ip("netns", "del", host)


def start(host: str, cable: str, rank: int, words: Sequence[str]) -> subprocess.Popen[str]:
    """Start torchrun on a host, for one worker there."""
    places = f"--nnodes 2 --nproc-per-node 1 --node-rank {rank} --local-addr {HOSTS[host]}"
    meeting = f"--master-addr {HOSTS['subfour-a']} --master-port {PORT}"
    launch = [*TORCHRUN, *shlex.split(f"{places} {meeting}"), "-m", "subfour", "train", *words]
    variables = os.environ | {"GLOO_SOCKET_IFNAME": cable, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    command = ["ip", "netns", "exec", host, *launch]
    return subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def on_two_hosts(run: Path, words: Sequence[str], kill_after: int | None) -> tuple[list[str], float]:
    """Train on both hosts; return what each said on standard error, and how long they took to stop after the kill.

    Args:
        run: where the run lies or will lie.
        words: of `subfour train`.
        kill_after: epochs, then the second host's worker is killed; None: nobody is.
    """
    hosts = [start(host, cable, rank, words) for rank, (host, cable) in enumerate(zip(HOSTS, ("eth-a", "eth-b"), strict=True))]
    killed = time.monotonic()
    if kill_after is not None:
        while len(RunDirectory(run).metrics()) < kill_after:
            if hosts[1].poll() is not None:
                raise RuntimeError(hosts[1].communicate()[1])
            time.sleep(0.1)
        (worker,) = children(hosts[1].pid)
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
    said = [host.communicate()[1] for host in hosts]
    stopped = time.monotonic() - killed
    if any((host.returncode == 0) == (kill_after is not None) for host in hosts):
        raise RuntimeError("\n".join(said))
    return said, stopped


def folder(work: Path, words: Sequence[str], workers: int, threads: int) -> Path:
    """Return where a run lies."""
    name = f"workers-{workers}" if threads == 1 else f"threads-{threads}"
    return work / (name if words == RECIPE else f"few-steps-{name}")


def train(run: Path, words: Sequence[str], workers: int, threads: int) -> None:
    """Train on this host, unless the run is finished already."""
    if not (run / "result.json").exists():
        command = [sys.executable, "-m", "subfour", "train", *words, "--out", str(run), "--workers", str(workers)]
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=True)


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def compared(run: Path, alone: Path) -> dict[str, Any]:
    """Return a run's row, beside the run of one worker."""
    records, expected = RunDirectory(run).metrics(), RunDirectory(alone).metrics()
    apart = [abs(one["train_loss"] - other["train_loss"]) for one, other in zip(records, expected, strict=True)]
    in_float = [difference for record, difference in zip(records, apart, strict=True) if record["kind"] == "float"]
    orders = [[row["name"] for row in RunDirectory(path).read_json("sensitivity.json")] for path in (run, alone)]
    frozen = [[set(frozen_layers(order, share)) for share in (Fraction(1, 3), Fraction(2, 3))] for order in orders]
    result = RunDirectory(run).read_json("result.json")
    return {
        "workers": result["workers"],
        "threads": result["threads"],
        "seconds": round(result["seconds"]),
        "first_epoch_loss_difference": f"{apart[0]:.1e}",
        "float_phase_loss_difference": f"{max(in_float):.1e}",
        "all_phases_loss_difference": f"{max(apart):.1e}",
        "same_freeze_order": orders[0] == orders[1],
        "same_layers_frozen": frozen[0] == frozen[1],
        **{row["widths"] + ("_snapped" if row["snapped"] else ""): f"{row['averaged']['top1']:.2f}" for row in result["rows"]},
    }


def same_weights(run: Path, other: Path) -> bool:
    """Return whether two runs ended with the same weights, bit for bit."""
    name = "weights.safetensors"
    return (run / name).read_bytes() == (other / name).read_bytes()


def main() -> None:
    """Train, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the runs here; those that are finished are not trained again")
    options = parser.parse_args()
    work = options.out or Path(tempfile.mkdtemp())
    rows: list[dict[str, Any]] = []
    for launch, words in (("--workers", RECIPE), ("--workers, 8 steps", FEW_STEPS)):
        for workers, threads in ((1, 1), (1, 2), (2, 1), (4, 1)):
            run = folder(work, words, workers, threads)
            train(run, words, workers, threads)
            rows.append({"launch": launch, "hosts": 1, **compared(run, folder(work, words, 1, 1))})
    run = work / "two-hosts"
    shutil.rmtree(run, ignore_errors=True)
    with two_hosts():
        said, stopped = on_two_hosts(run, [*RECIPE, "--out", str(run)], KILLED_AFTER)
        print("\n".join(line for text in said for line in text.splitlines() if "subfour: " in line))
        on_two_hosts(run, ["--resume", str(run)], None)
    killed = {
        "seconds_to_stop_after_a_kill": f"{stopped:.1f}",
        "same_bits_as_on_one_host": same_weights(run, folder(work, RECIPE, 2, 1)),
    }
    rows.append({"launch": "torchrun --nnodes 2", "hosts": 2, **compared(run, folder(work, RECIPE, 1, 1)), **killed})
    shared = provenance()
    columns = list(dict.fromkeys([*shared, *(column for row in rows for column in row)]))
    write_rows(TOTALS, columns, [shared | row for row in rows])
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
