"""The deployed network as a list of operations on named values: what every executor and exporter reads.

Two sorts of values flow: integer *codes* (of a quantizer, relative to its zero point, so that code 0 is the padding) and real
*values* (what a layer gives). A layer turns codes into values, a `Quantize` turns values into codes:

    acc[o]   = sum k[o, ...] * codes                    integers; padding is code 0, under h-swish too
    value[o] = multiplier[o] * acc[o] + addend[o]       batch norm, offset and both ranges folded in (fold.py)
    code     = clip(round((act(value) - offset) / step), qmin, qmax)       ties to even

`Pool` and `Multiply` work on values. A snapped program (snap.py) has none of them: `CodeSum` and `Gate` work on codes, so that
every code is a function of integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

Function = Literal["relu", "relu6", "hardswish", "hardsigmoid", "sigmoid"]
"""Elementwise nonlinearities."""

IMAGE = "image"
"""Name of the input: uint8 pixels [N, 3, H, W]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """Pixels to codes by a table: normalisation and the image's quantizer in one."""

    name: str
    inputs: tuple[str]
    table: Tensor
    """int64 [3, 256]: the code of each pixel value of each channel."""
    qmin: int
    qmax: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A convolution, or a linear layer, on codes."""

    name: str
    """The module's exact name."""
    inputs: tuple[str]
    codes: Tensor
    """Weight codes, integers as float: [O, I / groups, kh, kw], or [O, I] for a linear layer."""
    multiplier: Tensor
    """[O], not negative."""
    addend: Tensor
    """[O]"""
    weight_bits: int
    integer: bool = False
    """Whether multiplier and addend are integers, and so the values: on the skip paths of a snapped program."""
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def linear(self) -> bool:
        """Whether this is a linear layer."""
        return self.codes.ndim == 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Activate:
    """A nonlinearity on values."""

    name: str
    inputs: tuple[str]
    function: Function


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantize:
    """Values to codes."""

    name: str
    inputs: tuple[str]
    step: Tensor
    """Value-to-code step, a positive scalar."""
    offset: Tensor | float
    """Value of code 0, a scalar: a tensor where it is learned, an integer between integers."""
    qmin: int
    qmax: int
    bits: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Add:
    """The sum of two values: a skip."""

    name: str
    inputs: tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Multiply:
    """Values [N, C, H, W] times a gate [N, C, 1, 1]."""

    name: str
    inputs: tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Mean over the positions of values: [N, C, H, W] -> [N, C, 1, 1]."""

    name: str
    inputs: tuple[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeSum:
    """Sum over the positions of codes: [N, C, H, W] -> values [N, C, 1, 1], integers."""

    name: str
    inputs: tuple[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dequantize:
    """Codes to values: factor * (code - zero). Where a skip starts at a nonlinearity."""

    name: str
    inputs: tuple[str]
    zero: int
    """The code of value 0."""
    factor: Tensor
    """A positive scalar; an integer in a snapped program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """The product of codes and a gate's codes: q * g + zero * (largest - g), integers.

    With q = (v + zero * s) / s for values v and g = largest * gate, this is (v * gate + zero * s) * largest / s: the code
    of the gated value, in units of a step 1 / largest as wide.
    """

    name: str
    inputs: tuple[str, str]
    """Codes [N, C, H, W], and codes of the gate [N, C, 1, 1], 0 .. largest."""
    zero: int
    """The code of value 0."""
    largest: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Flatten:
    """Codes [N, C, 1, 1] -> [N, C], where a linear layer reads them; changes no number."""

    name: str
    inputs: tuple[str]


Operation: TypeAlias = Lookup | Layer | Activate | Quantize | Dequantize | Add | Multiply | Pool | CodeSum | Gate | Flatten


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """Operations in the order they are computed; each name is a value, and each input an earlier name or `IMAGE`."""

    operations: tuple[Operation, ...]
    snapped: bool = False
    """Whether every code is a function of integers, the same in every executor (snap.py)."""

    @property
    def output(self) -> str:
        """The logits [N, classes]: the last value."""
        return self.operations[-1].name

    def named(self, name: str) -> Operation:
        """Return an operation by name."""
        return next(operation for operation in self.operations if operation.name == name)

    def consumers(self, name: str) -> Sequence[Operation]:
        """Return the operations that read a value."""
        return [operation for operation in self.operations if name in operation.inputs]

    @property
    def quantizers(self) -> list[Quantize]:
        """Every `Quantize`, in order: where codes are compared."""
        return [operation for operation in self.operations if isinstance(operation, Quantize)]


Reader: TypeAlias = tuple[Quantize, Function | None]
"""A quantizer, and the nonlinearity between it and a value."""


def readers(program: Program, name: str) -> list[Reader]:
    """Return the quantizers that read a value, directly or through a nonlinearity."""
    found: list[Reader] = []
    for consumer in program.consumers(name):
        if isinstance(consumer, Quantize):
            found.append((consumer, None))
        elif isinstance(consumer, Activate):
            found += [(quantize, consumer.function) for quantize, _ in readers(program, consumer.name)]
    return found
