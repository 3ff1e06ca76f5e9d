"""From a program to an ONNX graph: what all formats share. Values and codes keep the names they have in the program.

A format says how layers and quantizers are written; pixels, nonlinearities, sums, pools and gates are the same in all.
"""

from abc import ABC, abstractmethod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from subfour.export.graph import Graph
from subfour.export.pixels import lines_of
from subfour.export.record import Record
from subfour.integer.program import (
    Activate,
    Add,
    CodeSum,
    Dequantize,
    Flatten,
    Gate,
    Layer,
    Lookup,
    Multiply,
    Operation,
    Pool,
    Program,
    Quantize,
)

POSITIONS = np.array([2, 3])
"""Axes of height and width."""


class Writer(ABC):
    """Writes one program."""

    domains: tuple[str, ...] = ()
    """Of operators that are not ONNX's own."""
    batch: int | str = "N"
    """Images at once; a name leaves it open."""

    def __init__(self, program: Program) -> None:
        """Start an empty graph.

        Args:
            program: snapped or not.
        """
        self.program = program
        self.graph = Graph()

    def write(self, record: Record) -> onnx.ModelProto:
        """Return the finished model.

        Args:
            record: for its metadata.
        """
        for operation in self.program.operations:
            self._write(operation)
        return self.graph.finish(record, self.program.output, domains=self.domains, batch=self.batch)

    @abstractmethod
    def layer(self, layer: Layer) -> None:
        """Write a layer; its value has its name."""

    @abstractmethod
    def quantize(self, quantize: Quantize) -> None:
        """Write a quantizer; its codes have its name."""

    @abstractmethod
    def round_pixels(self, lookup: Lookup, position: str) -> None:
        """Write the rounding of the float positions of pixels on the code axis; inside the quantizer's range already."""

    @abstractmethod
    def codes(self, name: str) -> str:
        """Return the name under which a quantizer's codes are floats."""

    def _write(self, operation: Operation) -> None:
        graph, name = self.graph, operation.name
        inputs = list(operation.inputs)
        match operation:
            case Lookup():
                self._lookup(operation)
            case Layer():
                self.layer(operation)
            case Quantize():
                self.quantize(operation)
            case Activate():
                self._activate(operation)
            case Add():
                self.add(operation)
            case Multiply():
                graph.node("Mul", inputs, name)
            case Pool():
                graph.node("GlobalAveragePool", inputs, name)
            case Flatten():
                graph.node("Flatten", [self.codes(inputs[0])], self.codes(name), axis=1)
            case CodeSum():
                # Never GlobalAveragePool: its mean is rounded before anything knows that the sum was an integer.
                graph.node("ReduceSum", [self.numbers(inputs[0]), graph.constant("positions", POSITIONS)], name, keepdims=1)
            case Dequantize():
                shifted = self._add(self.numbers(inputs[0]), -float(operation.zero), f"{name}.shifted")
                graph.node("Mul", [shifted, graph.scalar(float(operation.factor))], name)
            case Gate():
                # (q - zero) * g + zero * largest: the same integers in three operations
                values, gates = (self.numbers(source) for source in inputs)
                shifted = self._add(values, -float(operation.zero), f"{name}.shifted")
                rest = float(operation.zero * operation.largest)
                graph.node("Add", [graph.node("Mul", [shifted, gates], f"{name}.product"), graph.scalar(rest)], name)

    def linear_map(self, layer: Layer, inputs: list[str], output: str) -> str:
        """Write a convolution or a matrix product of codes, weight and perhaps bias; return the output's name.

        A matrix is [I, O] as MatMul takes it, and [O, I] with a bias, as Gemm does.
        """
        if not layer.linear:
            return self.graph.node("Conv", inputs, output, **_window(layer))
        if len(inputs) > 2:
            return self.graph.node("Gemm", inputs, output, transB=1)
        return self.graph.node("MatMul", inputs, output)

    def numbers(self, name: str) -> str:
        """Return the name under which codes, or what was made of them, are integers in float, for sums and products of codes."""
        return self.codes(name) if isinstance(self.program.named(name), Quantize) else name

    def add(self, add: Add) -> None:
        """Write a sum."""
        self.graph.node("Add", list(add.inputs), add.name)

    def quantizer_of(self, layer: Layer) -> Quantize | Lookup:
        """Return where a layer's codes come from."""
        source = self.program.named(layer.inputs[0])
        if isinstance(source, Flatten):
            source = self.program.named(source.inputs[0])
        assert isinstance(source, Quantize | Lookup)
        return source

    def _add(self, name: str, constant: float, output: str) -> str:
        """Add a constant to a value, unless it is 0, and return the sum's name."""
        return self.graph.node("Add", [name, self.graph.scalar(constant)], output) if constant else name

    def shifted(self, quantize: Quantize) -> str:
        """Write what a quantizer divides by its step, and return its name."""
        return self._add(quantize.inputs[0], -float(quantize.offset), f"{quantize.name}.shifted")

    def _activate(self, activate: Activate) -> None:
        graph, inputs = self.graph, list(activate.inputs)
        match activate.function:
            case "relu":
                graph.node("Relu", inputs, activate.name)
            case "relu6":
                graph.node("Clip", [*inputs, graph.scalar(0.0), graph.scalar(6.0)], activate.name)
            case "hardswish":
                graph.node("HardSwish", inputs, activate.name)
            case "hardsigmoid":
                graph.node("HardSigmoid", inputs, activate.name, alpha=1 / 6, beta=0.5)
            case "sigmoid":
                graph.node("Sigmoid", inputs, activate.name)

    def _lookup(self, lookup: Lookup) -> None:
        graph, name, image = self.graph, lookup.name, lookup.inputs[0]
        table = lookup.table.cpu().numpy()
        lines = lines_of(table)
        if lines is not None:
            slope, intercept = (
                graph.constant(f"{name}.{field}", values.reshape(1, 3, 1, 1)) for field, values in lines._asdict().items()
            )
            scaled = graph.node(
                "Mul", [graph.node("Cast", [image], f"{name}.pixels", to=TensorProto.FLOAT), slope], f"{name}.scaled"
            )
            position = graph.node("Add", [scaled, intercept], f"{name}.position")
        else:
            entries = graph.constant(f"{name}.table", table.astype(np.float32).flatten())
            first = graph.constant(f"{name}.first", np.array([0, 256, 512], dtype=np.int32).reshape(1, 3, 1, 1))
            pixels = graph.node("Cast", [image], f"{name}.pixels", to=TensorProto.INT32)
            position = graph.node("Gather", [entries, graph.node("Add", [pixels, first], f"{name}.entry")], f"{name}.position")
        self.round_pixels(lookup, position)


def array(values: Tensor) -> NDArray[np.float64]:
    """Return a program's constant as numpy has it."""
    numbers: NDArray[np.float64] = values.detach().cpu().double().numpy()
    return numbers


def per_channel(values: Tensor, layer: Layer) -> NDArray[np.float32]:
    """Return one number per output channel, shaped to go with a layer's value."""
    return array(values).astype(np.float32).reshape((-1,) if layer.linear else (1, -1, 1, 1))


def _window(layer: Layer) -> dict[str, list[int] | int]:
    """Return a convolution's attributes."""
    return {
        "kernel_shape": list(layer.codes.shape[2:]),
        "strides": list(layer.stride),
        "pads": [*layer.padding, *layer.padding],
        "dilations": list(layer.dilation),
        "group": layer.groups,
    }
