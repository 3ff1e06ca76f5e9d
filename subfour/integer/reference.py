"""What a deployed network means: integers, and nothing else on the path of codes. Read it as the specification.

Plain numpy; neither torch nor the rest of this package is needed. On its own it runs a file of the `codes` format:

    python reference.py MODEL.npz PIXELS.npy      logits of uint8 pixels [N, 3, H, W]

Accumulators are int32 (`accumulate` checks that they cannot overflow), values on skip paths int64.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]


def run(
    operations: Sequence[Mapping[str, Any]], arrays: Mapping[str, Integers], pixels: NDArray[np.uint8]
) -> dict[str, Integers]:
    """Return all codes and values by name. The last accumulators are the network's answer; see `logits`.

    Args:
        operations: in order, each with op, name, inputs and constants; see `lower.py`.
        arrays: constants that are arrays, by operation.constant.
        pixels: uint8 [N, 3, H, W].
    """
    values: dict[str, Integers] = {"image": pixels}
    for operation in operations:
        name = operation["name"]
        constants = {key: value for key, value in operation.items() if key not in ("op", "name", "inputs", "range")}
        constants |= {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.rpartition(".")[0] == name}
        values[name] = OPERATIONS[operation["op"]](*(values[source] for source in operation["inputs"]), **constants)
    return values


def load(path: str) -> tuple[list[dict[str, Any]], dict[str, Integers]]:
    """Return operations and arrays of a file in the `codes` format; nothing in it is executed."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("operations").tobytes()), arrays


def logits(arrays: Mapping[str, Integers], accumulators: Integers) -> NDArray[np.float64]:
    """Return the logits [N, classes] that the last accumulators stand for."""
    scaled: NDArray[np.float64] = arrays["logits.multiplier"] * accumulators + arrays["logits.addend"]
    return scaled


def lookup(pixels: Integers, *, table: Integers) -> Integers:
    """Return the code of each pixel: table[channel, pixel]."""
    return table[np.arange(pixels.shape[1])[:, None, None], pixels].astype(np.int32)


def accumulate(
    codes: Integers,
    *,
    weight: Integers,
    groups: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
) -> Integers:
    """Return the sums of weight codes times codes, int32; the border is code 0.

    Args:
        codes: [N, C, H, W], or [N, C] for a linear layer.
        weight: int8 [O, C / groups, kh, kw], or [O, C]; int16 where 128 is among the codes.
        groups: as in torch's convolution, like the rest.
        stride: down and right.
        padding: on both sides, vertically and horizontally.
        dilation: between the rows and columns of the kernel.

    Raises:
        OverflowError: an accumulator may leave int32.
    """
    weight = weight.astype(np.int32)
    largest = int(np.abs(codes).max(initial=0)) * int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max())
    if largest >= 2**31:
        raise OverflowError(f"an accumulator may reach {largest}, beyond int32")
    if weight.ndim == 2:
        return codes @ weight.T
    outputs, _, kernel_height, kernel_width = weight.shape
    (top, left), (down, right), (row_step, column_step) = padding, stride, dilation
    padded = np.pad(codes, ((0, 0), (0, 0), (top, top), (left, left)))
    images, channels, height, width = padded.shape
    rows = (height - row_step * (kernel_height - 1) - 1) // down + 1
    columns = (width - column_step * (kernel_width - 1) - 1) // right + 1
    sums = np.zeros((images, groups, outputs // groups, rows * columns), dtype=np.int32)
    for i in range(kernel_height):
        for j in range(kernel_width):
            seen = padded[:, :, i * row_step :, j * column_step :][:, :, : down * rows : down, : right * columns : right]
            seen = seen.reshape(images, groups, channels // groups, rows * columns)
            kernel = weight[:, :, i, j].reshape(groups, outputs // groups, channels // groups)
            sums += kernel * seen if groups == channels == outputs else kernel @ seen
    return sums.reshape(images, outputs, rows, columns)


def threshold(sums: Integers, *, base: int, up: Integers, down: Integers) -> Integers:
    """Return base + #{j : acc >= up[channel, j]} - #{j : acc >= down[channel, j]}; thresholds are sorted."""
    codes = np.empty(sums.shape, dtype=np.int32)
    for channel in range(sums.shape[1]):
        codes[:, channel] = base + np.searchsorted(up[channel], sums[:, channel], side="right")
        if down.shape[1]:
            codes[:, channel] -= np.searchsorted(down[channel], sums[:, channel], side="right").astype(np.int32)
    return codes


def rescale(sums: Integers, *, multiplier: Integers, addend: Integers) -> Integers:
    """Return multiplier * acc + addend per channel, int64."""
    shape = (1, -1) if sums.ndim == 2 else (1, -1, 1, 1)
    return sums.astype(np.int64) * multiplier.reshape(shape) + addend.reshape(shape)


def divide(values: Integers, *, step: int, offset: int, qmin: int, qmax: int) -> Integers:
    """Return clip(round((n - t) / m), qmin, qmax); m is odd, so that this is never half an integer."""
    return np.clip((2 * (values.astype(np.int64) - offset) + step) // (2 * step), qmin, qmax).astype(np.int32)


def dequantize(codes: Integers, *, zero: int, factor: int) -> Integers:
    """Return factor * (code - zero)."""
    return (codes.astype(np.int64) - zero) * factor


def gate(codes: Integers, gates: Integers, *, zero: int, largest: int) -> Integers:
    """Return q * g + zero * (largest - g)."""
    product: Integers = codes * gates + zero * (largest - gates)
    return product


def add(first: Integers, second: Integers) -> Integers:
    """Return the sum."""
    total: Integers = first + second
    return total


def code_sum(codes: Integers) -> Integers:
    """Return the sum over positions, [N, C, 1, 1]."""
    total: Integers = codes.sum(axis=(2, 3), keepdims=True, dtype=np.int64)
    return total


def flatten(values: Integers) -> Integers:
    """Return [N, C]."""
    return values.reshape(len(values), -1)


OPERATIONS: dict[str, Callable[..., Integers]] = {
    "lookup": lookup,
    "accumulate": accumulate,
    "threshold": threshold,
    "rescale": rescale,
    "divide": divide,
    "dequantize": dequantize,
    "gate": gate,
    "add": add,
    "sum": code_sum,
    "flatten": flatten,
}

if __name__ == "__main__":
    loaded, constants = load(sys.argv[1])
    np.set_printoptions(threshold=sys.maxsize)
    computed = run(loaded, constants, np.load(sys.argv[2]))
    print(logits(constants, [*computed.values()][-1]))  # noqa: T201 (a program of its own)
