"""What a quantized training step costs over the float step: time, bytes kept for backward, peak memory; beside the rivals'.

python benchmarks/bench_training.py [--repeats 15] [--threads 1 2] [--settings 0 1 2 3] [--default-malloc] [--out FILE.csv]

MobileNet-v2 and v3-large, 1,000 classes, W4A4, forward, backward and SGD with momentum, channels_last;
`training_step.py` says how each number is taken. glibc keeps freed memory, as in `subfour train`, unless told otherwise.
`--float-variants` takes the float step by torch.compile and under bf16 too.
"""

import argparse
import os
from functools import partial
from pathlib import Path

import torch
from table import provenance, write_rows
from training_rivals import RIVALS, missing, rival_network
from training_step import (
    CLASSES,
    COMPILED,
    FLOAT,
    FLOAT_BF16,
    FLOAT_COMPILED,
    FOLDED,
    PLAIN,
    SAMPLING,
    Memory,
    Variant,
    memory,
    random_batch,
    timed,
    trained,
    variant,
)

from subfour.models import build_model
from subfour.train.allocator import keep_freed_memory

SETTINGS = [
    *(("torchvision/mobilenet_v2", 32, 64), ("torchvision/mobilenet_v2", 224, 8)),
    *(("torchvision/mobilenet_v3_large", 32, 64), ("torchvision/mobilenet_v3_large", 224, 8)),
]
SIBLING = "another process used the sibling hyperthread all the time"
COLUMNS = [
    *("network", "image_size", "batch", "threads", "malloc", "variant", "milliseconds", "ratio", "saved_mb", "saved_ratio"),
    *("peak_mb", "peak_ratio", "resident_mb", "resident_ratio", "repeats", "date", "cpu", "torch", "commit", "load", "note"),
]


def build(name: str, setting: tuple[str, int, int]) -> Variant:
    """Return a variant of a setting's network, the same weights and images for all."""
    network_name, image_size, batch = setting
    torch.manual_seed(0)
    images, labels = random_batch(image_size, batch)
    model = build_model(network_name, num_classes=CLASSES).model
    if name in RIVALS:
        return trained(rival_network(model.to(memory_format=torch.channels_last), name), name, images, labels)
    return variant(model, name, images, labels)


def memory_of(setting: tuple[str, int, int], names: list[str]) -> dict[str, dict[str, str]]:
    """Return the memory columns of every variant."""
    measured = {name: memory(partial(build, name, setting)) for name in names}
    columns = {}
    for name, found in measured.items():
        ratios = zip(Memory._fields, found, measured[FLOAT], strict=True)
        columns[name] = {key: value for kind, mb, of_float in ratios for key, value in _memory_columns(kind, mb, of_float)}
    return columns


def _memory_columns(kind: str, mb: float, of_float: float) -> list[tuple[str, str]]:
    return [(f"{kind}_mb", f"{mb:.1f}"), (f"{kind}_ratio", f"{mb / of_float:.3f}")]


def times_of(setting: tuple[str, int, int], names: list[str], threads: int, repeats: int) -> dict[str, dict[str, str]]:
    """Return the time columns of every variant."""
    measured = timed({name: build(name, setting) for name in names}, threads, repeats)
    return {
        name: {"milliseconds": f"{1000 * seconds:.1f}", "ratio": f"{ratio:.3f}"} for name, (seconds, ratio) in measured.items()
    }


def main() -> None:
    """Print and write one row per variant; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--settings", type=int, nargs="+", default=[*range(len(SETTINGS))])
    parser.add_argument("--default-malloc", action="store_true")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--float-variants", action="store_true")
    parser.add_argument("--note", default=SIBLING)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for rival, package in missing().items():
        print(f"{rival}: missing, needs {package}")
    rivals = [rival for rival in RIVALS if rival not in missing() and not options.no_rivals]
    others = [FLOAT_COMPILED, FLOAT_BF16] if options.float_variants else []
    names = [FLOAT, FOLDED, COMPILED, PLAIN, SAMPLING, *rivals, *others]
    # First, from a process that has computed nothing: a child inherits what its parent keeps.
    columns = {number: {} if options.no_memory else memory_of(SETTINGS[number], names) for number in options.settings}
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
            for name, times in times_of(setting, names, threads, options.repeats).items():
                load = {"load": round(os.getloadavg()[0], 1)}
                rows.append(shared | place | load | {"threads": threads, "variant": name} | times | columns[number].get(name, {}))
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
