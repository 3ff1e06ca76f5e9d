"""QONNX, for FPGA flows (FINN, hls4ml): floats that lie on integers, with Quant nodes that say which.

    codes   Quant((value - offset) / step; scale 1, zero point 0, n bits): integers
    layer   Quant(weight codes; scale 1, n bits)  (*)  codes, an integer accumulator; then Mul(multiplier), Add(addend)

Padding is ordinary zero padding, because offsets are folded into addends. Scale, zero point and bit width are 0-d constants, as
these flows ask for; batch size is 1. The step stands before the Quant node: as its scale it would have to be divided out behind,
and products of steps and codes, divided, miss integers by the last bit (qonnx 1.0.0 on onnxruntime 1.32.0). What is checked is
that qonnx's own executor computes the reference's codes; no hardware flow was run. Quant is an operator of its own domain:
onnxruntime cannot load such a file.
"""

import numpy as np

from subfour.export.writer import Writer, array, per_channel, window
from subfour.integer.program import Layer, Lookup, Quantize

DOMAIN = "qonnx.custom_op.general"

IMAGE_BITS = 8


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
        quantized = self._quant(stored, f"{name}.weight.quantized", bits=layer.weight_bits, signed=True)
        inputs, sums = [self.codes(layer.inputs[0]), quantized], f"{name}.accumulators"
        if layer.linear:
            graph.node("MatMul", inputs, sums)
        else:
            graph.node("Conv", inputs, sums, **window(layer))
        multiplier = graph.constant(f"{name}.multiplier", per_channel(layer.multiplier, layer))
        scaled = graph.node("Mul", [sums, multiplier], f"{name}.scaled")
        graph.node("Add", [scaled, graph.constant(f"{name}.addend", per_channel(layer.addend, layer))], name)

    def quantize(self, quantize: Quantize) -> None:
        """Write the position on the code axis, and a Quant node."""
        graph, name = self.graph, quantize.name
        step = graph.constant(f"{name}.step", array(quantize.step).astype(np.float32).reshape(()))
        position = graph.node("Div", [self.shifted(quantize), step], f"{name}.position")
        signed = quantize.qmin < 0
        if not signed and quantize.qmax < 2**quantize.bits - 1:  # ReLU6 that snapping has merged into the clip
            position = graph.node("Min", [position, graph.scalar(float(quantize.qmax))], f"{name}.clipped")
        self._quant(position, name, bits=quantize.bits, signed=signed)

    def round_pixels(self, lookup: Lookup, position: str) -> None:
        """Write a Quant node."""
        self._quant(position, lookup.name, bits=IMAGE_BITS, signed=True)

    def _quant(self, values: str, output: str, *, bits: int, signed: bool) -> str:
        graph = self.graph
        constants = [graph.scalar(1.0), graph.scalar(0.0), graph.scalar(float(bits))]
        return graph.node(
            "Quant",
            [values, *constants],
            output,
            domain=DOMAIN,
            signed=int(signed),
            narrow=int(signed),  # signed codes are -L .. L
            rounding_mode="ROUND",
        )
