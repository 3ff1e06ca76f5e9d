"""The portable file: ONNX of opset 21 that runs in onnxruntime and, on integer kernels, in OpenVINO.

    codes   Clip(0 .. qmax * step) -> QuantizeLinear (step): uint8; where codes have both signs QuantizeLinear (zero point -qmin)
            -> Clip, and the zero point is subtracted behind the Cast
    layer   Cast(codes) * 1  (*)  Cast(INT4 weight codes) * multiplier, without bias; then Add(addend)

Measured with onnxruntime 1.32.0 and OpenVINO 2026.4.1 on MobileNet-v2 at 224 pixels, batch 1, one core, over onnxruntime's float
(see results/LOG.md); each choice is one of a pair that both runtimes must like:

- Weights and codes become float by Cast and Mul. DequantizeLinear in both places is as fast in OpenVINO (0.64), but onnxruntime
  dequantizes weights in every run (2.8 times float, not 1.5), and where codes alone have it, its WeightBiasQuantization quantizes
  weights and biases anew: logits are off by a tenth.
- The product of codes with 1 is what OpenVINO takes for a dequantization; without it convolutions run in float (1.34, not 0.64).
  onnxruntime removes it.
- INT4 becomes int8 before it becomes float: directly, OpenVINO's convolutions run in float.
- Values are clipped and not codes, which behind a convolution takes OpenVINO a third less time (15 and 23 % of v2's at batch 16).
  Signed codes are clipped all the same: a Clip of their values is fused by OpenVINO into uint8 codes around 128, which costs 7
  bits of the position: 5 % of images of an unsnapped network came out otherwise.
- Processors without VNNI add two products in 16 bits, which saturates where 8-bit weights meet 8-bit codes. Such a layer has no
  product with 1, and is exact in float.
"""

import numpy as np
from onnx import TensorProto

from subfour.export.graph import CODE_KIND, INT4, weight_kind
from subfour.export.writer import Writer, array, per_channel
from subfour.integer.program import Layer, Lookup, Quantize

LARGEST_PAIR = np.iinfo(np.int16).max
"""Sum of two products that does not saturate."""


class PortableWriter(Writer):
    """See the head of this file."""

    def codes(self, name: str) -> str:
        """Return the name of the codes as floats."""
        return f"{name}.float"

    def layer(self, layer: Layer) -> None:
        """Write a convolution or a matrix product, and the addition behind it."""
        graph, name = self.graph, layer.name
        codes, multiplier = array(layer.codes), array(layer.multiplier).astype(np.float32)
        if layer.linear:
            codes = codes.T  # as MatMul takes it
        else:
            multiplier = multiplier.reshape(-1, 1, 1, 1)
        integers = graph.weight(f"{name}.weight", codes, layer.weight_bits)
        if weight_kind(codes, layer.weight_bits) == INT4:
            integers = graph.node("Cast", [integers], f"{name}.weight.int8", to=TensorProto.INT8)
        scaled = graph.node(
            "Mul",
            [
                graph.node("Cast", [integers], f"{name}.weight.float", to=TensorProto.FLOAT),
                graph.constant(f"{name}.multiplier", multiplier),
            ],
            f"{name}.weight.scaled",
        )
        product = self.linear_map(layer, [self.codes(layer.inputs[0]), scaled], f"{name}.product")
        graph.node("Add", [product, graph.constant(f"{name}.addend", per_channel(layer.addend, layer))], name)

    def quantize(self, quantize: Quantize) -> None:
        """Write clipping and rounding, and the codes as floats."""
        graph, name = self.graph, quantize.name
        zero, largest = -quantize.qmin, quantize.qmax - quantize.qmin
        width = array(quantize.step).astype(np.float32).reshape(())
        values, step = self.shifted(quantize), graph.constant(f"{name}.step", width)
        if largest == np.iinfo(CODE_KIND).max:
            self._round(values, step, zero, name)
        elif zero == 0:
            ends = [graph.scalar(0.0), graph.scalar(float(largest * width))]
            self._round(graph.node("Clip", [values, *ends], f"{name}.clipped"), step, zero, name)
        else:
            rounded = self._round(values, step, zero, f"{name}.rounded")
            graph.node("Clip", [rounded, self._code(0), self._code(largest)], name)
        self._read(quantize)

    def round_pixels(self, lookup: Lookup, position: str) -> None:
        """Write rounding, and the codes as floats."""
        self._round(position, self.graph.scalar(1.0), -lookup.qmin, lookup.name)
        self._read(lookup)

    def _round(self, values: str, step: str, zero: int, output: str) -> str:
        return self.graph.node("QuantizeLinear", [values, step, self._code(zero)], output)

    def _read(self, quantizer: Quantize | Lookup) -> None:
        """Write the codes as floats."""
        graph, name = self.graph, quantizer.name
        unscaled = graph.node("Cast", [name], f"{name}.unscaled", to=TensorProto.FLOAT)
        if quantizer.qmin:
            unscaled = graph.node("Sub", [unscaled, graph.scalar(float(-quantizer.qmin))], f"{name}.centred")
        if 2 * (quantizer.qmax - quantizer.qmin) * self._largest_weight(quantizer) <= LARGEST_PAIR:
            graph.node("Mul", [unscaled, graph.scalar(1.0)], self.codes(name))
        else:
            graph.node("Identity", [unscaled], self.codes(name))

    def _largest_weight(self, quantizer: Quantize | Lookup) -> float:
        """Return the largest magnitude of a weight code of the layers that a quantizer feeds, 0 where there is none."""
        layers = [operation for operation in self.program.operations if isinstance(operation, Layer)]
        return max((float(layer.codes.abs().max()) for layer in layers if self.quantizer_of(layer) is quantizer), default=0.0)

    def _code(self, stored: int) -> str:
        return self.graph.constant(f"{CODE_KIND}({stored})", CODE_KIND.type(stored))
