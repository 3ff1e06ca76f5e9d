"""What a quantized training step costs over the float step: time, bytes kept for backward, peak memory; beside the rivals'.

python benchmarks/bench_training.py [--repeats 15] [--threads 1 2] [--settings 0 1 2 3] [--default-malloc] [--out FILE.csv]

MobileNet-v2 and v3-large, 1,000 classes, W4A4, forward, backward and SGD with momentum, channels_last. The variants take turns,
one step each, and a ratio is the median over the rounds of a variant's step to the float step of the same round. One thread is
timed by CPU time of the process, which others on the same core disturb by the caches only; two by wall time. Peak memory is the
largest resident set during three steps over that of the process before it had a network. glibc keeps freed memory, as in
`subfour train`, unless told otherwise.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from saved_memory import saved_bytes
from table import provenance, write_rows
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)
from training_rivals import RIVALS, missing, rival_network

from subfour.convert.calibrate import calibrate, calibrate_weights, set_bits
from subfour.convert.rewrite import convert
from subfour.engine.compiled import compiled_operations
from subfour.engine.folded import TORCH, folded_network
from subfour.models import build_model
from subfour.profit.instability import InstabilityMeter
from subfour.train.allocator import keep_freed_memory

SETTINGS = [
    *(("torchvision/mobilenet_v2", 32, 64), ("torchvision/mobilenet_v2", 224, 8)),
    *(("torchvision/mobilenet_v3_large", 32, 64), ("torchvision/mobilenet_v3_large", 224, 8)),
]
FLOAT, FOLDED, COMPILED, PLAIN = "float32", "subfour, folded", "subfour, compiled", "subfour, plain"
SAMPLING = "subfour, folded, AIWQ in this step"
CLASSES, BITS = 1000, 4
NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIBLING = "another process used the sibling hyperthread all the time"
COLUMNS = [
    *("network", "image_size", "batch", "threads", "malloc", "variant", "milliseconds", "ratio", "saved_mb", "saved_ratio"),
    *("peak_mb", "peak_ratio", "repeats", "date", "cpu", "torch", "commit", "load", "note"),
]


@dataclass(frozen=True)
class Variant:
    """A network that trains."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor

    def loss(self) -> Tensor:
        """Compute the forward pass."""
        return F.cross_entropy(self.network(self.images), self.labels)

    def step(self) -> None:
        """Train one step."""
        loss = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def build(name: str, setting: tuple[str, int, int]) -> Variant:
    """Return a variant of a setting's network, the same weights and images for all."""
    network_name, image_size, batch = setting
    torch.manual_seed(0)
    images = torch.randn(batch, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch,))
    model = build_model(network_name, num_classes=CLASSES).model.to(memory_format=torch.channels_last)
    network = model
    if name in RIVALS:
        network = rival_network(model, name)
    elif name != FLOAT:
        convert(model, **NORMALIZATION)
        set_bits(model, BITS, BITS)
        calibrate_weights(model, anew=True)
        calibrate(model, [(images, labels)], torch.device("cpu"))
        network = model if name == PLAIN else folded_network(model, compiled_operations() if name == COMPILED else TORCH)
    if name == SAMPLING:
        InstabilityMeter(network, decay=0.999, corrected=True).__enter__()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    return Variant(network.train(), optimizer, images, labels)


def megabytes(name: str, setting: tuple[str, int, int]) -> tuple[float, float]:
    """Return the memory of a variant, (kept for backward, peak), from a process of its own with the system's malloc."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_megabytes, (name, setting))


def _megabytes(name: str, setting: tuple[str, int, int]) -> tuple[float, float]:
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    variant = build(name, setting)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(3):
        variant.step()
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1e3
    saved = saved_bytes(variant.loss, variant.network, variant.images) / 1e6
    return saved, peak - pages * resource.getpagesize() / 1e6


def memory_of(setting: tuple[str, int, int], names: list[str]) -> dict[str, dict[str, str]]:
    """Return the memory columns of every variant."""
    measured = {name: megabytes(name, setting) for name in names}
    float_saved, float_peak = measured[FLOAT]
    return {
        name: {
            "saved_mb": f"{saved:.1f}",
            "saved_ratio": f"{saved / float_saved:.3f}",
            "peak_mb": f"{peak:.0f}",
            "peak_ratio": f"{peak / float_peak:.3f}",
        }
        for name, (saved, peak) in measured.items()
    }


def timed(setting: tuple[str, int, int], names: list[str], threads: int, repeats: int) -> dict[str, dict[str, str]]:
    """Return the time columns: the median of a step, and of its ratio to the float step; the variants take turns."""
    torch.set_num_threads(threads)
    clock: Callable[[], float] = time.process_time if threads == 1 else time.perf_counter
    variants = {name: build(name, setting) for name in names}
    rounds = []
    for _ in range(repeats + 1):
        taken = {}
        for name, variant in variants.items():
            start = clock()
            variant.step()
            taken[name] = clock() - start
        rounds.append(taken)
    rounds = rounds[1:]  # the first one warms up
    times = {}
    for name in names:
        milliseconds = 1000 * statistics.median(taken[name] for taken in rounds)
        ratio = statistics.median(taken[name] / taken[FLOAT] for taken in rounds)
        times[name] = {"milliseconds": f"{milliseconds:.1f}", "ratio": f"{ratio:.3f}"}
    return times


def main() -> None:
    """Print and write one row per variant; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--settings", type=int, nargs="+", default=[*range(len(SETTINGS))])
    parser.add_argument("--default-malloc", action="store_true")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--note", default=SIBLING)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for rival, package in missing().items():
        print(f"{rival}: missing, needs {package}")
    rivals = [rival for rival in RIVALS if rival not in missing() and not options.no_rivals]
    names = [FLOAT, FOLDED, COMPILED, PLAIN, SAMPLING, *rivals]
    # First, from a process that has computed nothing: a child inherits what its parent keeps.
    memory = {number: {} if options.no_memory else memory_of(SETTINGS[number], names) for number in options.settings}
    if not options.default_malloc:
        keep_freed_memory()
    shared = {
        "malloc": "default" if options.default_malloc else "kept",
        "repeats": options.repeats,
        "torch": torch.__version__,
        "note": options.note,
        **provenance(),
    }
    rows: list[dict[str, object]] = []
    for number in options.settings:
        setting = SETTINGS[number]
        place = dict(zip(("network", "image_size", "batch"), setting, strict=True))
        for threads in options.threads:
            for name, times in timed(setting, names, threads, options.repeats).items():
                load = {"load": round(os.getloadavg()[0], 1)}
                rows.append(shared | place | load | {"threads": threads, "variant": name} | times | memory[number].get(name, {}))
                shown = (rows[-1].get(key, "") for key in ("milliseconds", "ratio", "saved_ratio", "peak_ratio"))
                print(
                    f"{setting[0]:32} {setting[1]:3} px  {threads} threads  {name:36}",
                    *(f"{value:>8}" for value in shown),
                    flush=True,
                )
            if options.out:  # after each setting: the whole takes long
                write_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
