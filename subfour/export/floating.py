"""The float network that a program came from, as ONNX: what int8 toolchains start from, and what speed is compared with.

Quantizers are left out; batch norm stays folded in. A layer reads values in place of codes, so its weights are
k * multiplier / step, and the offset moves into the bias. Padding is zero padding, as in the stock network.
"""

import numpy as np

from subfour.export.writer import Writer, array, window
from subfour.integer.program import Layer, Lookup, Program, Quantize


class FloatWriter(Writer):
    """Writes a program that is not snapped; see the head of this file."""

    def __init__(self, program: Program) -> None:
        """Start an empty graph."""
        super().__init__(program)
        self._values: dict[str, str] = {}
        """What would be quantized, by quantizer."""
        self._scales: dict[str, tuple[float, float]] = {}
        """Step and offset, by quantizer."""

    def codes(self, name: str) -> str:
        """Return the name of the values that take the place of codes; flattened ones have their own."""
        return self._values.get(name, name)

    def layer(self, layer: Layer) -> None:
        """Write a convolution or a matrix product with its bias."""
        graph, name, source = self.graph, layer.name, layer.inputs[0]
        step, offset = self._scales[source if source in self._scales else self.program.named(source).inputs[0]]
        weight = array(layer.codes) * array(layer.multiplier).reshape(-1, *[1] * (layer.codes.ndim - 1)) / step
        bias = array(layer.addend) - offset * weight.reshape(len(weight), -1).sum(axis=1)
        constants = [
            graph.constant(f"{name}.{field}", values.astype(np.float32)) for field, values in (("weight", weight), ("bias", bias))
        ]
        inputs = [self.codes(source), *constants]
        if layer.linear:
            graph.node("Gemm", inputs, name, transB=1)
        else:
            graph.node("Conv", inputs, name, **window(layer))

    def quantize(self, quantize: Quantize) -> None:
        """Write nothing."""
        self._values[quantize.name] = quantize.inputs[0]
        self._scales[quantize.name] = (float(quantize.step), quantize.offset)

    def round_pixels(self, lookup: Lookup, position: str) -> None:
        """Write nothing."""
        self._values[lookup.name] = position
        self._scales[lookup.name] = (1.0, 0.0)
