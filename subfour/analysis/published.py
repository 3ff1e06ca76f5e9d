"""Published ImageNet results of MobileNets, each with its source, and what we compute that such a model costs.

`published.csv` holds only numbers read in a primary source, or derived from one (November 2026); what is remembered or quoted
third hand stays out.
Costs are ours, counted as the paper counts other people's models (profile uniform), whatever layers a method leaves wider.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from subfour.analysis.cost import network_cost
from subfour.analysis.stock import IMAGENET_PIXELS, stock_workload

NETWORKS = {
    "mobilenet_v1": "subfour/mobilenet_v1",
    "mobilenet_v2": "torchvision/mobilenet_v2",
    "mobilenet_v3_large": "torchvision/mobilenet_v3_large",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedResult:
    """One published accuracy, and our count of its cost."""

    network: str
    method: str
    activation_bits: int
    weight_bits: int
    top1: float
    """Percent, ImageNet."""
    source: str
    gbops: float
    megabytes: float


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """Return every row of the table."""
    workloads = {network: stock_workload(name, IMAGENET_PIXELS) for network, name in NETWORKS.items()}
    rows = []
    with files("subfour.analysis").joinpath("published.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            activation_bits, weight_bits = int(row["activation_bits"]), int(row["weight_bits"])
            cost = network_cost(
                workloads[row["network"]], weight_bits=weight_bits, activation_bits=activation_bits, profile="uniform"
            )
            rows.append(
                PublishedResult(
                    network=row["network"],
                    method=row["method"],
                    activation_bits=activation_bits,
                    weight_bits=weight_bits,
                    top1=float(row["top1"]),
                    source=row["source"],
                    gbops=cost.bops / 1e9,
                    megabytes=cost.bytes / 1e6,
                )
            )
    return tuple(rows)
