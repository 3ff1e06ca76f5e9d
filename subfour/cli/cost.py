"""`subfour cost MODEL`: multiplications, bit operations, size and activation memory; MODEL is a name, a run, or a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console

from subfour.analysis.claims import claims
from subfour.analysis.cost import Cost, Profile, network_cost
from subfour.cli.arguments import Switch, parse, require_any
from subfour.cli.console import make_console, print_json
from subfour.cli.model_argument import check_model
from subfour.cli.tables import print_table
from subfour.ops import check_bits, widths_name
from subfour.profit.fields import BitWidth
from subfour.profit.subject import Subject, read_subject


@dataclass(frozen=True, kw_only=True)
class CostOptions:
    """Print what a network costs on one image, layer by layer and in all."""

    model: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = None
    """torchvision/NAME, timm/NAME, subfour/NAME, DISTRIBUTION/NAME, a run directory or a model file."""
    weight_bits: tuple[BitWidth, ...] | None = None
    """Width of the weights, 32 for float; several stand side by side. By default a run's own, else 4."""
    activation_bits: tuple[BitWidth, ...] | None = None
    """Width of the activations, likewise: one for all, or as many as widths of weights."""
    profile: Profile = "ours"
    """ours: the image and squeeze-and-excitation keep 8-bit inputs. uniform: no layer does."""
    resolution: int | None = None
    """Side of the image, pixels. By default a run's own, else 224."""
    without_fetch: Switch = False
    """Leave the one fetch of each parameter out of the bit operations."""
    claims: Switch = False
    """Print the claims of PROFIT's supplement beside what we compute, and nothing else."""
    json: Switch = False
    """Print a JSON object; a list of them for several widths, and for claims."""


def run(arguments: Sequence[str]) -> None:
    """Print the costs."""
    options = parse(CostOptions, arguments, prog="subfour cost")
    console = make_console()
    if options.claims:
        if options != CostOptions(claims=True, json=options.json):
            raise ValueError("claims: they are printed alone, of the networks that they name; leave model and other options out")
        _print_claims(console, as_json=options.json)
        return
    if options.model is None:
        raise ValueError("model: name one, such as: subfour cost torchvision/mobilenet_v2; or ask for --claims")
    if options.resolution is not None and options.resolution < 1:
        raise ValueError(f"resolution: {options.resolution} is not possible; use 1 pixel or more, such as 224")
    check_model(options.model)
    for name, widths in (("weight_bits", options.weight_bits), ("activation_bits", options.activation_bits)):
        if widths is not None:
            require_any(name, widths, such_as="4")
    given = _paired(options.weight_bits or (), options.activation_bits or ())
    subject = read_subject(options.model, options.resolution)
    costs = [
        network_cost(
            subject.workload,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            profile=options.profile,
            fetch=not options.without_fetch,
        )
        for weight_bits, activation_bits in _filled(given, subject)
    ]
    if options.json:
        records = [_record(options.model, cost) for cost in costs]
        print_json(records[0] if len(records) == 1 else records)
    else:
        _print_costs(console, options.model, costs)


Widths = tuple[int | None, int | None]
"""Of weights and activations; None where none is given."""


def _paired(weight_bits: Sequence[int], activation_bits: Sequence[int]) -> list[Widths]:
    """Return the pairs of widths that are asked for; one width goes with all of the other kind.

    Raises:
        ValueError: a width is not possible, or the numbers of widths differ.
    """
    for name, widths in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        for bits in widths:
            check_bits(bits, name)
    count = max(len(weight_bits), len(activation_bits), 1)
    if not {len(weight_bits), len(activation_bits)} <= {0, 1, count}:
        raise ValueError(
            f"activation_bits: {len(activation_bits)} widths do not pair with {len(weight_bits)} of weight_bits; "
            "give one, or as many"
        )
    weights: Sequence[int | None] = list(weight_bits) or [None]
    activations: Sequence[int | None] = list(activation_bits) or [None]
    return [(weights[index % len(weights)], activations[index % len(activations)]) for index in range(count)]


def _filled(given: Sequence[Widths], subject: Subject) -> list[tuple[int, int]]:
    return [(weights or subject.weight_bits, activations or subject.activation_bits) for weights, activations in given]


def _record(model: str, cost: Cost) -> dict[str, Any]:
    return {
        "model": model,
        "weight_bits": cost.weight_bits,
        "activation_bits": cost.activation_bits,
        "profile": cost.profile,
        "macs": cost.macs,
        "gbops": cost.bops / 1e9,
        "size_mb": cost.bytes / 1e6,
        "peak_activation_mb": cost.peak_activation_bytes / 1e6,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "weight_bits": cost.weight_bits,
                "input_bits": layer.input_bits,
                "macs": layer.macs,
                "gbops": layer.bops / 1e9,
                "size_mb": layer.bytes / 1e6,
                "activation_mb": layer.activation_bytes / 1e6,
            }
            for layer in cost.layers
        ],
    }


def _print_costs(console: Console, model: str, costs: Sequence[Cost]) -> None:
    names = [widths_name(cost.weight_bits, cost.activation_bits) for cost in costs]
    columns = ["name", "kind", "M MACs"]
    for name in names:
        columns += [f"{name}: M BOPS", "kB", "act. kB"]
    rows = []
    for layers in zip(*(cost.layers for cost in costs), strict=True):
        numbers = [number for layer in layers for number in (layer.bops / 1e6, layer.bytes / 1e3, layer.activation_bytes / 1e3)]
        rows.append((layers[0].name, layers[0].kind, layers[0].macs / 1e6, *numbers))
    title = f"{model}, one image, profile {costs[0].profile} (act. kB: input, output and what waits while the layer runs)"
    print_table(console, title, columns, rows)
    console.print()
    totals = [
        (
            name,
            f"{cost.macs:,}",
            f"{cost.bops / 1e9:.4g}",
            f"{cost.bytes / 1e6:.4g}",
            f"{cost.peak_activation_bytes / 1e6:.4g}",
            f"{costs[0].bops / cost.bops:.2f}x",
        )
        for name, cost in zip(names, costs, strict=True)
    ]
    columns = ["widths", "MACs", "G BOPS", "size MB", "peak activation MB", f"cheaper than {names[0]}"]
    print_table(console, "in all", columns, totals)


def _print_claims(console: Console, *, as_json: bool) -> None:
    rows = claims()
    if as_json:
        print_json(
            [
                {
                    "claim": row.says,
                    "model": row.model,
                    "against": row.against,
                    "claimed": row.claimed,
                    "computed": row.computed,
                    "like_for_like": row.like_for_like,
                    "holds": row.holds,
                }
                for row in rows
            ]
        )
        return
    title = "PROFIT's supplement, Sec. 4: percent by which o(4,4) is cheaper, at 224 pixels and 1,000 classes"
    columns = ("claim", "against", "claimed", "computed", "like for like", "reproduces")
    table = [
        (
            row.says,
            row.against,
            f"{row.claimed:.1f}",
            f"{row.computed:.2f}",
            f"{row.like_for_like:.2f}",
            "yes" if row.holds else f"no, {-row.computed:.1f} % above",
        )
        for row in rows
    ]
    print_table(console, title, columns, table)
    console.print(
        "\no(a,w): the image and squeeze-and-excitation keep 8-bit inputs; u(a,w): no layer does. Like for like counts both "
        "models as o.\nThe paper does not say which 4-bit model the last claim means; we read it as v2 counted as u(4,4)."
    )
