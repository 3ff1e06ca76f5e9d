"""The float network that a program came from, as ONNX: what int8 toolchains start from, and what speed is compared with.

Quantizers are left out; batch norm stays folded in. A layer reads values in place of codes, so its weights are
k * multiplier / step, and the offset moves into the bias. Padding is zero padding, as in the stock network.
"""

import numpy as np

from subfour.export.writer import Writer, array
from subfour.integer.program import Layer, Lookup, Quantize


class FloatWriter(Writer):
    """Writes a program that is not snapped; see the head of this file."""

    def codes(self, name: str) -> str:
        """Return the name of the values that take the place of codes; pixels and flattened values have their own."""
        operation = self.program.named(name)
        if isinstance(operation, Quantize):
            return operation.inputs[0]
        return f"{name}.position" if isinstance(operation, Lookup) else name

    def layer(self, layer: Layer) -> None:
        """Write a convolution or a matrix product with its bias."""
        graph, name, quantizer = self.graph, layer.name, self.quantizer_of(layer)
        step, offset = (float(quantizer.step), float(quantizer.offset)) if isinstance(quantizer, Quantize) else (1.0, 0.0)
        weight = array(layer.codes) * array(layer.multiplier).reshape(-1, *[1] * (layer.codes.ndim - 1)) / step
        bias = array(layer.addend) - offset * weight.reshape(len(weight), -1).sum(axis=1)
        constants = [
            graph.constant(f"{name}.{field}", values.astype(np.float32)) for field, values in (("weight", weight), ("bias", bias))
        ]
        inputs = [self.codes(layer.inputs[0]), *constants]
        self.linear_map(layer, inputs, name)

    def quantize(self, quantize: Quantize) -> None:
        """Write nothing."""

    def round_pixels(self, lookup: Lookup, position: str) -> None:
        """Write nothing."""
