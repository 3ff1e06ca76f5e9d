"""A snapped program in integers alone: what a file in the `codes` format holds, and what `reference.py` runs.

    lookup      codes of pixels, by table                       accumulate  sum of weight codes times codes
    threshold   code of an accumulator: how many of the channel's sorted integers it has reached
    rescale     multiplier * acc + addend, on skip paths        divide      code = clip(round(n / m)), m odd
    add, relu, flatten                                          sum         over the positions of codes
    dequantize  factor * (code - zero)                          gate        q * g + zero * (largest - g)

Batch norm, nonlinearities and quantizers have become thresholds: with T_j the accumulator at which a boundary is passed,

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
)
from subfour.integer.settle import Reader, code_readers

NEVER = 2**31 - 1
"""A threshold that no accumulator reaches."""


@dataclass(frozen=True, slots=True)
class IntegerProgram:
    """Operations as plain data."""

    operations: list[dict[str, Any]]
    """Each with op, name, inputs and its constants; a constant that is an array stands in `arrays` under name.constant."""
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
    readers = {quantize.name: (layer, (quantize, function)) for layer, quantize, function in _fused(program)}
    fused = {
        operation.name
        for operation in program.operations
        if isinstance(operation, Activate) and not _is_integer(program, operation.inputs[0])
    }
    for operation in program.operations:
        if operation.name not in fused:
            _lower(lowered, program, operation, readers)
    last = program.operations[-1]
    assert isinstance(last, Layer)
    lowered.arrays["logits.multiplier"] = last.multiplier.double().numpy()
    lowered.arrays["logits.addend"] = last.addend.double().numpy()
    return lowered


def _fused(program: Program) -> list[tuple[Layer, Quantize, Any]]:
    return [
        (operation, quantize, function)
        for operation in program.operations
        if isinstance(operation, Layer) and not operation.integer
        for quantize, function in code_readers(program, operation.name)
    ]


def _is_integer(program: Program, name: str) -> bool:
    """Return whether a value is an integer of a skip path."""
    operation = program.named(name)
    return isinstance(operation, Add | Dequantize) or (isinstance(operation, Layer) and operation.integer)


def _lower(lowered: IntegerProgram, program: Program, operation: Operation, readers: dict[str, tuple[Layer, Reader]]) -> None:
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
            emit("accumulate", sums, inputs, weight=_integers(operation.codes, np.int8), groups=operation.groups, **window)
            if operation.integer:
                multiplier, addend = _integers(operation.multiplier, np.int32), _integers(operation.addend, np.int32)
                emit("rescale", name, (sums,), multiplier=multiplier, addend=addend)
        case Quantize() if name in readers:
            layer, reader = readers[name]
            base, up, down = _thresholds(layer, reader)
            emit("threshold", name, (f"{layer.name}.accumulators",), base=base, up=up, down=down)
        case Quantize():
            emit("divide", name, inputs, step=int(operation.step), qmin=operation.qmin, qmax=operation.qmax)
        case Dequantize():
            emit("dequantize", name, inputs, zero=operation.zero, factor=int(operation.factor))
        case Gate():
            emit("gate", name, inputs, zero=operation.zero, largest=operation.largest)
        case Activate():
            emit("relu", name, inputs)
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
    up, down = (
        np.sort(np.clip(np.ceil((values[None] - addend) / multiplier), -NEVER, NEVER).astype(np.int32), axis=1)
        for values in boundaries(quantize, function)
    )
    base = resting_code(quantize, function)
    passed = (up == -NEVER).sum(axis=1)  # boundaries below the resting value, the same ones for every channel
    return base - int(passed[0]), up, down[:, (down < NEVER).any(axis=0)]


def _integers(values: Any, dtype: Any) -> NDArray[Any]:
    """Return a tensor's integers, after a check that it holds nothing else and they fit."""
    array = values.detach().cpu().double().numpy()
    integers = array.astype(dtype)
    assert (integers == array).all(), "not an integer, or too large"
    return integers  # type: ignore[no-any-return]
