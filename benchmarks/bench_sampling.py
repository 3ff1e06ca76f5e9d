"""Whether AIWQ over every k-th image of a batch ranks the layers as AIWQ over all of them does, and what it costs.

python benchmarks/bench_sampling.py [--recipe cifar10-mobilenet-v2] [--data parquet:PATH] [--steps 300 200 391] [--out FILE.csv]

A short real run: float steps, W4A4 steps, and a sampling phase at the recipe's constant rate, in which several meters watch the
same network, each on its own images. Meters do not change the training, so that all see the same updates. The thirds
are those that PROFIT freezes first; `separate` is by how much the layers on either side of the border of the first third differ,
over the smaller: where that is next to nothing, the border itself means nothing. `step` is a step with that meter over one
without any: the median time in its hooks beside that of all else, in this same run.
"""

import argparse
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from table import provenance, write_rows
from torch import nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.convert.calibrate import calibrate_for
from subfour.engine.folded import folded_network
from subfour.profit.instability_meter import InstabilityMeter
from subfour.profit.session import prepare_session
from subfour.recipes import load_recipe
from subfour.train.allocator import keep_freed_memory

STRIDES = (1, 2, 4, 8, 16)
COLUMNS = [
    *("recipe", "steps", "stride", "samples", "layers", "rank_correlation", "first_third", "second_third", "separate", "step"),
    *("seed", "date", "cpu", "torch", "commit"),
]


class TimedMeter(InstabilityMeter):
    """A meter that knows how long its hooks took."""

    seconds = 0.0

    def _look(self, *arguments: Any) -> None:
        start = perf_counter()
        super()._look(*arguments)
        self.seconds += perf_counter() - start

    def _pass_done(self, *arguments: Any) -> None:
        start = perf_counter()
        super()._pass_done(*arguments)
        self.seconds += perf_counter() - start


def rank_correlation(first: dict[str, float], second: dict[str, float]) -> float:
    """Return Spearman's, of two sets of values without ties."""
    ranks = [torch.tensor([*values.values()], dtype=torch.float64).argsort().argsort().double() for values in (first, second)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def train(network: nn.Module, batches: Any, *, rate: float, meters: list[TimedMeter]) -> list[list[float]]:
    """Train on batches with the recipe's optimizer, ranges at a tenth of the rate; return a step's seconds, then each meter's."""
    ranges = [parameter for name, parameter in network.named_parameters() if name.endswith("_range_raw") and parameter.isfinite()]
    others = [parameter for name, parameter in network.named_parameters() if not name.endswith("_range_raw")]
    optimizer = torch.optim.SGD([{"params": others}, {"params": ranges, "lr": rate / 10}], lr=rate, momentum=0.9, nesterov=True)
    spent = []
    with ExitStack() as watched:
        for meter in meters:
            watched.enter_context(meter)
        for step, (images, labels) in enumerate(batches):
            start, before = perf_counter(), [meter.seconds for meter in meters]
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            inside = [meter.seconds - earlier for meter, earlier in zip(meters, before, strict=True)]
            spent.append([perf_counter() - start - sum(inside), *inside])
            if step % 50 == 0:
                print(f"step {step:4}  loss {loss.item():.3f}", flush=True)
    return spent


def main() -> None:
    """Print and write one row per interval; see the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="cifar10-mobilenet-v2")
    parser.add_argument("--data", default="parquet:cifar10")
    parser.add_argument("--steps", type=int, nargs=3, default=[300, 200, 391], metavar=("FLOAT", "QUANTIZED", "SAMPLED"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    config = replace(load_recipe(options.recipe), data=options.data, seed=options.seed)
    session = prepare_session(config)
    model, schedule = session.model, config.schedule
    batches = chain.from_iterable(session.training.epoch(epoch) for epoch in count())
    model.train()
    train(model, islice(batches, options.steps[0]), rate=schedule.float_lr or schedule.lr, meters=[])
    calibrate_for(model, 4, 4, islice(batches, config.calibration_batches))
    network = folded_network(model).train()
    train(network, islice(batches, options.steps[1]), rate=schedule.lr, meters=[])
    meters = [TimedMeter(network, decay=config.profit.decay, corrected=True, stride=stride) for stride in STRIDES]
    spent = train(network, islice(batches, options.steps[2]), rate=schedule.lr, meters=meters)
    shared = {"recipe": options.recipe, "steps": options.steps[2], "seed": options.seed}
    shared |= {"torch": torch.__version__, **provenance()}
    rows = []
    reference = meters[0].values()
    layers = len(reference)
    step, *inside = (median(seconds) for seconds in zip(*spent, strict=True))
    for meter, seconds in zip(meters, inside, strict=True):
        values, orders = meter.values(), (meters[0].ranking(), meter.ranking())
        same = [len({*orders[0][:end]} & {*orders[1][:end]}) / end for end in (layers // 3, 2 * layers // 3)]
        border = [reference[orders[0][layers // 3 + shift]] for shift in (-1, 0)]
        rows.append(
            shared
            | {
                "stride": meter.stride,
                "samples": max(kept + dropped for _, kept, dropped in meter.state()[1].values()),
                "layers": layers,
                "rank_correlation": f"{rank_correlation(reference, values):.4f}",
                "first_third": f"{same[0]:.3f}",
                "second_third": f"{same[1]:.3f}",
                "separate": f"{border[0] / border[1] - 1:.4f}",
                "step": f"{1 + seconds / step:.3f}",
            }
        )
        print(rows[-1], flush=True)
    if options.out:
        write_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
