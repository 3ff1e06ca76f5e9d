"""What the integers of a snapped program can be, whatever the image: how wide a register has to be, what a shift must meet."""

from itertools import product

import torch

from subfour.integer.bounds import accumulator_reach
from subfour.integer.program import Add, Dequantize, Flatten, Gate, Layer, Lookup, Program, Quantize

Range = tuple[int, int]
"""The least and the most."""


@torch.no_grad()
def value_ranges(program: Program) -> dict[str, Range]:
    """Return the range of each value by its name, and of a layer's sums by NAME.accumulators.

    A sum over positions has none: it grows with the image.

    Args:
        program: snapped.

    Raises:
        ValueError: an accumulator may leave int32; the message names the layer.
    """
    reach = accumulator_reach(program)
    found: dict[str, Range] = {}
    for operation in program.operations:
        name, entering = operation.name, [found[source] for source in operation.inputs if source in found]
        match operation:
            case Lookup() | Quantize():
                found[name] = operation.qmin, operation.qmax
            case Flatten() if entering:
                found[name] = entering[0]
            case Layer():
                lowest, highest = reach[name]
                found[f"{name}.accumulators"] = int(lowest.min()), int(highest.max())
                if operation.integer:  # multipliers are not negative
                    multiplier, addend = operation.multiplier.double(), operation.addend.double()
                    found[name] = int((multiplier * lowest + addend).min()), int((multiplier * highest + addend).max())
            case Dequantize():
                least, most = (int(operation.factor) * (code - operation.zero) for code in entering[0])
                found[name] = least, most
            case Gate():
                products = [code * gate + operation.zero * (operation.largest - gate) for code, gate in product(*entering)]
                found[name] = min(products), max(products)
            case Add() if len(entering) == 2:
                found[name] = entering[0][0] + entering[1][0], entering[0][1] + entering[1][1]
    return found
