"""QONNX, for FPGA flows (FINN, hls4ml): floats that lie on integers, with Quant nodes that say which.

    codes   Quant((value - offset) / step; scale 1, zero point 0, n bits): integers
    layer   Quant(weight codes; scale 1, n bits)  (*)  codes, an integer accumulator; then Mul(multiplier), Add(addend)

Padding is ordinary zero padding, because offsets are folded into addends. Scale, zero point and bit width are 0-d constants, as
these flows ask for; batch size is 1. The step stands before the Quant node: as its scale it would have to be divided out behind,
and products of steps and codes, divided, miss integers by the last bit (qonnx 1.0.0 on onnxruntime 1.32.0). What is checked is
that qonnx's own executor computes the reference's codes; no hardware flow was run. Quant is an operator of its own domain:
onnxruntime cannot load such a file.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subfour.export.writer import Writer, array, per_channel
from subfour.integer.program import Layer, Lookup, Quantize

DOMAIN = "qonnx.custom_op.general"

IMAGE_BITS = 8


class QuantGrid(NamedTuple):
    """What a Quant node clips to."""

    bits: int
    signed: bool
    narrow: bool
    zero: int

    @property
    def highest(self) -> int:
        """The largest code, without the zero point."""
        return (1 << self.bits - self.signed) - 1 - self.zero


class QonnxWriter(Writer):
    """See the head of this file."""

    domains = (DOMAIN,)
    batch = 1

    def codes(self, name: str) -> str:
        """Return the name of the codes as floats: their own."""
        return name

    def layer(self, layer: Layer) -> None:
        """Write an integer convolution or matrix product, its multiplier and its addend."""
        graph, name = self.graph, layer.name
        weight = array(layer.codes).astype(np.float32)
        stored = graph.constant(f"{name}.weight", weight.T if layer.linear else weight)
        quantized = self._quant(stored, f"{name}.weight.quantized", _weight_grid(weight, layer.weight_bits))
        sums = self.linear_map(layer, [self.codes(layer.inputs[0]), quantized], f"{name}.accumulators")
        multiplier = graph.constant(f"{name}.multiplier", per_channel(layer.multiplier, layer))
        scaled = graph.node("Mul", [sums, multiplier], f"{name}.scaled")
        graph.node("Add", [scaled, graph.constant(f"{name}.addend", per_channel(layer.addend, layer))], name)

    def quantize(self, quantize: Quantize) -> None:
        """Write the position on the code axis, and a Quant node."""
        graph, name = self.graph, quantize.name
        step = graph.constant(f"{name}.step", array(quantize.step).astype(np.float32).reshape(()))
        position = graph.node("Div", [self.shifted(quantize), step], f"{name}.position")
        grid = _grid(quantize.qmin, quantize.qmax, quantize.bits)
        if quantize.qmax < grid.highest:  # ReLU6 that snapping has merged into the clip, or a step that it has widened
            position = graph.node("Min", [position, graph.scalar(float(quantize.qmax))], f"{name}.clipped")
        self._quant(position, name, grid)

    def round_pixels(self, lookup: Lookup, position: str) -> None:
        """Write a Quant node."""
        self._quant(position, lookup.name, _grid(lookup.qmin, lookup.qmax, IMAGE_BITS))

    def _quant(self, values: str, output: str, grid: QuantGrid) -> str:
        graph = self.graph
        constants = [graph.scalar(1.0), graph.scalar(float(grid.zero)), graph.scalar(float(grid.bits))]
        return graph.node(
            "Quant",
            [values, *constants],
            output,
            domain=DOMAIN,
            signed=int(grid.signed),
            narrow=int(grid.narrow),
            rounding_mode="ROUND",
        )


def _grid(qmin: int, qmax: int, bits: int) -> QuantGrid:
    """Return the grid that begins at a code and holds another: -L .. L, -L - 1 .. L, or any other by a zero point."""
    most = 2 ** (bits - 1)
    signed = qmin in (-most, 1 - most) and qmax < most
    return QuantGrid(bits=bits, signed=signed, narrow=signed and qmin > -most, zero=0 if signed else -qmin)


def _weight_grid(codes: NDArray[np.float32], bits: int) -> QuantGrid:
    """Return the grid of weight codes, a bit wider than their quantizer's where turning channels round needs it (fold.py)."""
    most = 2 ** (bits - 1)
    if codes.max() >= most or codes.min() < -most:
        return QuantGrid(bits=bits + 1, signed=True, narrow=True, zero=0)
    return QuantGrid(bits=bits, signed=True, narrow=codes.min() > -most, zero=0)
