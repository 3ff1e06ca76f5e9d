"""A training step of a network, in float or quantized, and what it costs: time, bytes kept for backward, peak memory."""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from saved_memory import peak_bytes, saved_bytes
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.convert.calibrate import calibrate_for
from subfour.convert.rewrite import convert
from subfour.engine.compiled import compiled_operations
from subfour.engine.folded import TORCH, folded_network
from subfour.profit.instability_meter import InstabilityMeter

FLOAT, FOLDED, COMPILED, PLAIN = "float32", "subfour, folded", "subfour, compiled", "subfour, plain"
SAMPLING = "subfour, folded, AIWQ in this step"
FLOAT_COMPILED, FLOAT_BF16 = "float32, torch.compile", "float32 weights, bf16 autocast"
CLASSES, BITS = 1000, 4
NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Variant:
    """A network that trains."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    bf16: bool = False

    def loss(self) -> Tensor:
        """Compute the forward pass."""
        precision: AbstractContextManager[object] = torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext()
        with precision:
            return F.cross_entropy(self.network(self.images), self.labels)

    def step(self) -> None:
        """Train one step."""
        loss = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def random_batch(image_size: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return images and labels."""
    images = torch.randn(batch, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(CLASSES, (batch,))


def quantized(model: nn.Module, name: str, images: Tensor, labels: Tensor) -> nn.Module:
    """Convert a float network in place, W4A4, and return what trains it under one of our names."""
    convert(model, **NORMALIZATION)
    calibrate_for(model, BITS, BITS, [(images, labels)])
    network = model if name == PLAIN else folded_network(model, compiled_operations() if name == COMPILED else TORCH)
    if name == SAMPLING:
        InstabilityMeter(network, decay=0.999, corrected=True).__enter__()
    return network


def variant(model: nn.Module, name: str, images: Tensor, labels: Tensor) -> Variant:
    """Return a float network, or a quantized one of ours, that trains."""
    model = model.to(memory_format=torch.channels_last)
    in_float = name in (FLOAT, FLOAT_COMPILED, FLOAT_BF16)
    return trained(model if in_float else quantized(model, name, images, labels), name, images, labels)


def trained(network: nn.Module, name: str, images: Tensor, labels: Tensor) -> Variant:
    """Return a network that trains by SGD with momentum."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=True)
    network.train()
    if name == FLOAT_COMPILED:
        network.compile()
    return Variant(network, optimizer, images, labels, bf16=name == FLOAT_BF16)


class Memory(NamedTuple):
    """What a training step needs, in MB."""

    saved: float
    """Kept for backward."""
    peak: float
    """The most that tensors take at one time: weights, gradients, momentum, activations."""
    resident: float
    """The process at its largest, over what it was before it had a network: libraries and malloc's own included."""


def memory(build: Callable[[], Variant]) -> Memory:
    """Return the memory of a variant, from a process of its own with the system's malloc.

    Call it before this process has computed anything: a child inherits what its parent keeps.
    """
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_memory, (build,))


def _memory(build: Callable[[], Variant]) -> Memory:
    torch.set_num_threads(1)
    compiled_operations()  # loading the library, and torch's loader, is no part of any network's memory
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    built = build()
    Path("/proc/self/clear_refs").write_text("5")  # the largest counts from here
    for _ in range(3):
        built.step()
    largest = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1e3
    saved = saved_bytes(built.loss, built.network, built.images)
    peak = peak_bytes(built.step, built.network, built.optimizer)
    return Memory(saved / 1e6, peak / 1e6, (largest - pages * resource.getpagesize()) / 1e6)


def timed(variants: Mapping[str, Variant], threads: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Return for each variant the median seconds of a step, and the median of its ratio to the float step of the same round.

    The variants take turns, one step each. One thread is timed by CPU time of the process, which others on the same core disturb
    by the caches only; more by wall time.
    """
    torch.set_num_threads(threads)
    clock: Callable[[], float] = time.process_time if threads == 1 else time.perf_counter
    rounds = []
    for _ in range(repeats + 1):
        taken = {}
        for name, built in variants.items():
            start = clock()
            built.step()
            taken[name] = clock() - start
        rounds.append(taken)
    rounds = rounds[1:]  # the first one warms up
    return {
        name: (
            statistics.median(taken[name] for taken in rounds),
            statistics.median(taken[name] / taken[FLOAT] for taken in rounds),
        )
        for name in variants
    }
