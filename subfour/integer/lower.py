"""A snapped program in integers alone: what a file in the `codes` format holds, and what `reference.py` runs.

    lookup      codes of pixels, by table                       accumulate  sum of weight codes times codes
    rescale     n = multiplier * acc + addend                   divide      code = clip(round((n - t) / m)), m odd
    threshold   code of an accumulator behind h-swish: how many of the channel's sorted integers it has reached
    add, flatten                                                sum         over the positions of codes
    dequantize  factor * (code - zero)                          gate        q * g + zero * (largest - g)

With T_j the accumulator at which the boundary between two codes is passed, on the way up and on the way down,

    code = base + #{j : acc >= up_j} - #{j : acc >= down_j}
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subfour.integer.boundaries import boundaries, resting_code
from subfour.integer.program import (
    Activate,
    Add,
    CodeSum,
    Dequantize,
    Flatten,
    Gate,
    Layer,
    Lookup,
    Operation,
    Program,
    Quantize,
    Reader,
    readers,
)
from subfour.integer.ranges import value_ranges

NEVER = 2**31 - 1
"""A threshold that no accumulator reaches."""


@dataclass(frozen=True, slots=True)
class IntegerProgram:
    """Operations as plain data."""

    operations: list[dict[str, Any]]
    """Each with op, name, inputs, `range` where no image can leave it, and its constants; one that is an array stands in `arrays`
    under name.constant."""
    arrays: dict[str, NDArray[Any]]
    """Integers, except the two that scale the logits: `logits.multiplier` and `logits.addend`."""


def lower(program: Program) -> IntegerProgram:
    """Return a settled program in integers.

    Raises:
        ValueError: the program is not snapped.
    """
    if not program.snapped:
        raise ValueError("program: it is not snapped, so its codes are no functions of integers; train or export it with --snap")
    lowered = IntegerProgram([], {})
    curved = {
        reader[0].name: (layer, reader)
        for layer in program.operations
        if isinstance(layer, Layer) and not layer.integer
        for reader in readers(program, layer.name)
    }
    for operation in program.operations:
        if not isinstance(operation, Activate):  # part of a threshold
            _lower(lowered, operation, curved)
    ranges = value_ranges(program)
    for entry in lowered.operations:
        if entry["name"] in ranges:
            entry["range"] = list(ranges[entry["name"]])
    last = program.operations[-1]
    assert isinstance(last, Layer)
    lowered.arrays["logits.multiplier"] = last.multiplier.double().numpy()
    lowered.arrays["logits.addend"] = last.addend.double().numpy()
    return lowered


def _lower(lowered: IntegerProgram, operation: Operation, curved: dict[str, tuple[Layer, Reader]]) -> None:
    def emit(op: str, name: str, inputs: tuple[str, ...], **constants: Any) -> None:
        plain = {}
        for key, value in constants.items():
            if isinstance(value, np.ndarray):
                lowered.arrays[f"{name}.{key}"] = value
            else:
                plain[key] = value
        lowered.operations.append({"op": op, "name": name, "inputs": list(inputs), **plain})

    name, inputs = operation.name, operation.inputs
    match operation:
        case Lookup():
            emit("lookup", name, inputs, table=_integers(operation.table, np.int16))
        case Layer():
            sums = f"{name}.accumulators"
            window = {} if operation.linear else {key: list(getattr(operation, key)) for key in ("stride", "padding", "dilation")}
            # A grid with -128 has 128 where a negative gain turns a channel round (fold.py).
            weight = _integers(operation.codes, np.int8 if operation.codes.abs().max() < 128 else np.int16)
            emit("accumulate", sums, inputs, weight=weight, groups=operation.groups, **window)
            if operation.integer:
                multiplier, addend = _integers(operation.multiplier, np.int32), _integers(operation.addend, np.int32)
                emit("rescale", name, (sums,), multiplier=multiplier, addend=addend)
        case Quantize() if name in curved:
            layer, reader = curved[name]
            base, up, down = _thresholds(layer, reader)
            emit("threshold", name, (f"{layer.name}.accumulators",), base=base, up=up, down=down)
        case Quantize():
            offset = int(operation.offset)
            emit("divide", name, inputs, step=int(operation.step), offset=offset, qmin=operation.qmin, qmax=operation.qmax)
        case Dequantize():
            emit("dequantize", name, inputs, zero=operation.zero, factor=int(operation.factor))
        case Gate():
            emit("gate", name, inputs, zero=operation.zero, largest=operation.largest)
        case Add():
            emit("add", name, inputs)
        case CodeSum():
            emit("sum", name, inputs)
        case Flatten():
            emit("flatten", name, inputs)
        case _:
            raise AssertionError(f"{name}: not in a snapped program")


def _thresholds(layer: Layer, reader: Reader) -> tuple[int, NDArray[np.int32], NDArray[np.int32]]:
    """Return the base code, and the sorted thresholds [O, T] upwards and downwards.

    `settle` keeps every accumulator clear of every boundary, so float64 decides here without doubt.
    """
    quantize, function = reader
    multiplier, addend = (values.double().numpy()[:, None] for values in (layer.multiplier, layer.addend))
    passed = boundaries(quantize, function)
    up, down = (
        np.sort(np.clip(np.ceil((values[None] - addend) / multiplier), -NEVER, NEVER).astype(np.int32), axis=1)
        for values in passed
    )
    always = int(np.isneginf(passed.up).sum())  # boundaries below the resting value, which every accumulator has reached
    return resting_code(quantize) - always, up, down[:, (down < NEVER).any(axis=0)]


def _integers(values: Any, dtype: Any) -> NDArray[Any]:
    """Return a tensor's integers, after a check that it holds nothing else and they fit."""
    array = values.detach().cpu().double().numpy()
    integers = array.astype(dtype)
    assert (integers == array).all(), "not an integer, or too large"
    return integers  # type: ignore[no-any-return]
