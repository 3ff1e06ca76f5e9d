"""Stock networks and small ones as programs: unsnapped, snapped, settled. Each is made once and only read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subfour.data.preprocess import Preprocessing
from subfour.integer.build import build_program
from subfour.integer.execute import compute
from subfour.integer.measure import Snapping, measure
from subfour.integer.program import IMAGE, Operation, Program
from subfour.integer.settle import settle
from subfour.integer.snap import snap
from subfour.quantizers import QuantizerName
from subfour.seeding import derive_seed
from tests.convert.stock_networks import NORMALIZATION, stock_network
from tests.profit.quantized_networks import quantized

SIZE = 32

PREPROCESSING = Preprocessing(image_size=SIZE, resize_size=SIZE, interpolation="bilinear", **NORMALIZATION)

NAMES = (
    *("torchvision/mobilenet_v2", "torchvision/mobilenet_v3_small", "torchvision/mobilenet_v3_large"),
    *("subfour/tiny_mobilenet_v3", "subfour/mobilenet_v1"),
    *("timm/mnasnet_small", "timm/mobilenetv4_conv_small"),
)
"""ReLU, ReLU6 and h-swish; hard-sigmoid and sigmoid gates; skips; pooling before and behind the last convolution."""

FEW = ("torchvision/mobilenet_v2", "torchvision/mobilenet_v3_small", "subfour/tiny_mobilenet_v3")
"""Those that are tested each time; the others are slow."""


def often_or_seldom(name: str, *others: object) -> Any:
    """Return parameters of a test, which is slow unless its network is one of the few."""
    return pytest.param(name, *others, marks=() if name in FEW else pytest.mark.slow)


NETWORKS = [often_or_seldom(name) for name in NAMES]
"""All of them, as parameters of a test."""

WIDTHS = [
    *(often_or_seldom(name, 4) for name in NAMES),
    *((name, 2) for name in ("subfour/tiny_mobilenet_v3", "torchvision/mobilenet_v2")),
    *(("subfour/tiny_mobilenet_v3", 6), ("torchvision/mobilenet_v2", 8)),
]
"""All of them at 4 bits, and one with and one without h-swish at the ends of what can be snapped; h-swish at 8 bits cannot."""


@dataclass(frozen=True)
class Programs:
    """One network."""

    model: nn.Module
    """Converted and calibrated."""
    built: Program
    """In float64, not snapped."""
    snapping: Snapping

    @cached_property
    def snapped(self) -> Program:
        """In float64."""
        with torch.no_grad():
            return snap(self.built, self.snapping)

    @cached_property
    def settled(self) -> Program:
        """As it is executed and exported."""
        return settle(self.snapped, self.snapping)


def random_pixels(count: int = 2, size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("pixels"))
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def programs_of(model: nn.Module) -> Programs:
    """Return the programs of a converted network."""
    built = build_program(model, PREPROCESSING, dtype=torch.float64)
    return Programs(model, built, measure(built, [random_pixels(8)]))


@cache
def stock_programs(name: str, bits: int = 4, quantizer: QuantizerName = "duq") -> Programs:
    """Return the programs of a stock network at one width."""
    return programs_of(quantized(stock_network(name), bits, quantizer=quantizer, image_size=SIZE))


def normed(*layers: nn.Module) -> nn.Sequential:
    """Return a sequence whose batch norms are far from identity."""
    model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(derive_seed("norms"))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model


@torch.no_grad()
def computed(
    program: Program, pixels: Tensor, *, through: Callable[[Operation, Sequence[Tensor]], Tensor] = compute
) -> dict[str, Tensor]:
    """Execute a program with operations of one's own."""
    values = {IMAGE: pixels}
    for operation in program.operations:
        values[operation.name] = through(operation, [values[name] for name in operation.inputs])
    return values


def codes_of(program: Program, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the codes of every quantizer."""
    return {quantize.name: values[quantize.name] for quantize in program.quantizers}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, int]:
    """Return how many codes differ, of those quantizers where any does."""
    counts = {name: int((codes.double() != other[name].double()).sum()) for name, codes in one.items()}
    return {name: count for name, count in counts.items() if count}
