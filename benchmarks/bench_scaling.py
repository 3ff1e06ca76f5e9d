"""The numbers of docs/scaling.md: what a training step costs and sends, measured; what follows for many GPUs, computed.

python benchmarks/bench_scaling.py [--images-per-second 1000] [--bandwidth 20] [--latency 30] [--call 8]

Measured, on one CPU thread: the time of a training step at 4 bits, its tensor operations (each a kernel on a GPU), and the bytes
that a worker hands to the others. The model, for N GPUs and the recipe's batch of 256 images:

    work      = max(256 / N / images per second, operations * call)        a GPU computes, or waits for Python
    gradients = 2 (N - 1) / N * bytes / bandwidth, hidden behind the backward pass (2/3 of work) as far as it fits
    meetings  = (2 per batch norm + 6) * latency * log2 N                  batch norm, counts, losses: nothing hides these
    speed-up  = work(1) / (work(N) + gradients beyond the backward pass + meetings)
"""

import argparse
import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

from subfour.convert.calibrate import calibrate_for
from subfour.convert.rewrite import convert
from subfour.models.zoo import build_model

NETWORKS = ("torchvision/mobilenet_v2", "torchvision/mobilenet_v3_large")

PIXELS, IMAGES, BATCH, BITS = 224, 8, 256, 4

STEPS = 3
"""Measured, after one that warms up."""


class Counter(TorchDispatchMode):
    """Counts tensor operations that compute, views left out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one and call it."""
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Step:
    """What one training step is."""

    seconds: float
    """CPU time of `IMAGES` images."""
    operations: int
    gradient_bytes: int
    batchnorms: int
    batchnorm_bytes: int
    """Handed over by one worker: count, mean and variance in float64 forward, two sums in float32 backward, per channel."""


def measured(name: str) -> Step:
    """Measure a network by name."""
    torch.manual_seed(0)
    model = build_model(name, num_classes=1000, weights="none").model.to(memory_format=torch.channels_last)
    convert(model, quantizer="duq", padding="negative", mean=(0.5,) * 3, std=(0.25,) * 3)
    images = torch.randn(IMAGES, 3, PIXELS, PIXELS).to(memory_format=torch.channels_last)
    labels = torch.arange(IMAGES)
    calibrate_for(model, BITS, BITS, [(images, labels)])
    optimizer = SGD(model.train().parameters(), lr=0.001, momentum=0.9, nesterov=True)
    step(model, optimizer, images, labels)
    seconds = statistics.median(cpu_seconds(model, optimizer, images, labels) for _ in range(STEPS))
    with Counter() as counter:
        step(model, optimizer, images[:2], labels[:2])
    channels = [module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return Step(
        seconds=seconds,
        operations=counter.count,
        gradient_bytes=4 * sum(parameter.numel() for parameter in model.parameters()),
        batchnorms=len(channels),
        batchnorm_bytes=sum(channels) * (3 * 8 + 2 * 4),
    )


def cpu_seconds(model: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor) -> float:
    """Return the CPU time of a step: other processes do not count."""
    begin = time.process_time()
    step(model, optimizer, images, labels)
    return time.process_time() - begin


def step(model: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor) -> None:
    """Train once."""
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


def step_seconds(one: Step, gpus: int, options: argparse.Namespace, *, batch: int = BATCH) -> tuple[float, float, float]:
    """Return what a step takes on so many GPUs: work, gradients that nothing hides, meetings."""
    work = max(batch / gpus / options.images_per_second, one.operations * options.call * 1e-6)
    sending = 2 * (gpus - 1) / gpus * one.gradient_bytes / (options.bandwidth * 1e9)
    meetings = (2 * one.batchnorms + 6) * options.latency * 1e-6 * math.log2(gpus)
    return work, max(sending - 2 / 3 * work, 0.0), meetings


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-per-second", type=float, default=1000, help="of one GPU that trains at 4 bits: an assumption")
    parser.add_argument("--bandwidth", type=float, default=20, help="GB/s between any two GPUs: an assumption")
    parser.add_argument("--latency", type=float, default=30, help="microseconds of a small collective, per doubling of GPUs")
    parser.add_argument("--call", type=float, default=8, help="microseconds from Python to a kernel: an assumption")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = {name: measured(name) for name in NETWORKS}
    print("| network | CPU s, 8 images | operations | gradients, MB | batch norms | their bytes, MB |\n|---|---|---|---|---|---|")
    for name, one in steps.items():
        sent = f"{one.gradient_bytes / 1e6:.1f} | {one.batchnorms} | {one.batchnorm_bytes / 1e6:.2f}"
        print(f"| {name.partition('/')[2]} | {one.seconds:.2f} | {one.operations} | {sent} |")
    print("\n| network | batch | GPUs | work, ms | gradients, ms | meetings, ms | images/s | speed-up |")
    print("|---|---|---|---|---|---|---|---|")
    for name, one in steps.items():
        for batch, gpus in ((BATCH, 1), (BATCH, 8), (BATCH, 64), (BATCH * 8, 64)):
            parts = step_seconds(one, gpus, options, batch=batch)
            alone = sum(step_seconds(one, 1, options, batch=batch))
            shown = " | ".join(f"{1000 * part:.1f}" for part in parts)
            rate = f"{batch / sum(parts):.0f} | {alone / sum(parts):.1f}"
            print(f"| {name.partition('/')[2]} | {batch} | {gpus} | {shown} | {rate} |")


if __name__ == "__main__":
    main()
