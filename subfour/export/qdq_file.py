"""Plain QDQ, for compilers of integer hardware: standard operators between QuantizeLinear and DequantizeLinear, true scales.

    codes   Clip(value - offset) -> QuantizeLinear(step; zero point -qmin) -> DequantizeLinear(step): uint8
    layer   Conv(codes * step, DequantizeLinear(INT4 weight codes; multiplier / step), DequantizeLinear(int32 bias; multiplier))
    sum     both operands and the result in int16, a 64th of the step of the quantizer behind: the precision highway

An integer bias cannot hold the addend: it is rounded to accumulator units, and skips to their int16 steps. So this file is close
to the network, not exact; `verify` counts how far. It was run in onnxruntime and OpenVINO only, never compiled for hardware.
"""

from typing import Any

import numpy as np

from subfour.export.graph import CODE_KIND
from subfour.export.writer import Writer, array
from subfour.integer.program import Add, CodeSum, Dequantize, Gate, Layer, Lookup, Quantize, readers

SKIP_KIND = np.dtype(np.int16)
"""What sums are stored as."""

SKIP_STEPS = 64
"""int16 steps to a step of the quantizer that reads a sum: 1/128 of a code is lost, 512 codes fit."""

LARGEST_BIAS = 2.0**30
"""In accumulator units. A channel whose addend is larger has none to speak of: its weights become 0."""


class QdqWriter(Writer):
    """See the head of this file."""

    def codes(self, name: str) -> str:
        """Return the name of the codes as floats, in true scale."""
        return f"{name}.float"

    def numbers(self, name: str) -> str:
        """Return the name of codes as integers in float, for sums and products of codes."""
        return f"{name}.number" if isinstance(self.program.named(name), Quantize) else name

    def layer(self, layer: Layer) -> None:
        """Write a convolution or a matrix product with its bias."""
        graph, name = self.graph, layer.name
        multiplier, addend = array(layer.multiplier), array(layer.addend)
        silent = (multiplier == 0) | (np.abs(addend) > LARGEST_BIAS * multiplier)
        codes = np.where(silent.reshape(-1, *[1] * (layer.codes.ndim - 1)), 0, array(layer.codes))
        multiplier = np.where(silent, np.abs(addend) / LARGEST_BIAS, multiplier)
        multiplier[multiplier == 0] = 1  # nothing but zeros comes out, whatever the scale
        source = self.quantizer_of(layer)
        step = float(source.step) if isinstance(source, Quantize) else 1.0
        weight = graph.weight(f"{name}.weight", codes, layer.weight_bits)
        scale = graph.constant(f"{name}.scale", (multiplier / step).astype(np.float32))
        real = graph.node("DequantizeLinear", [weight, scale], f"{name}.weight.float", axis=0)
        bias = graph.constant(f"{name}.bias", np.rint(addend / multiplier).astype(np.int32))
        bias_scale = graph.constant(f"{name}.bias.scale", multiplier.astype(np.float32))
        inputs = [self.codes(layer.inputs[0]), real]
        inputs.append(graph.node("DequantizeLinear", [bias, bias_scale], f"{name}.bias.float", axis=0))
        self.linear_map(layer, inputs, name)

    def quantize(self, quantize: Quantize) -> None:
        """Write clipping, rounding, and the codes in true scale."""
        graph, name, step = self.graph, quantize.name, float(array(quantize.step).astype(np.float32))
        ends = [graph.scalar(end * step) for end in (quantize.qmin, quantize.qmax)]
        values = graph.node("Clip", [self.shifted(quantize), *ends], f"{name}.clipped")
        real = self._round(values, name, step, zero=-quantize.qmin)
        if any(isinstance(consumer, CodeSum | Gate | Dequantize) for consumer in self.program.consumers(name)):
            graph.node("Mul", [real, graph.scalar(1 / step)], self.numbers(name))

    def round_pixels(self, lookup: Lookup, position: str) -> None:
        """Write rounding, and the codes as floats."""
        self._round(position, lookup.name, 1.0, zero=-lookup.qmin)

    def add(self, add: Add) -> None:
        """Write a sum in int16."""
        step = self._skip_step(add)
        sides = zip("ab", add.inputs, strict=True)
        operands = [self._round(source, f"{add.name}.{side}", step, kind=SKIP_KIND) for side, source in sides]
        total = self.graph.node("Add", operands, f"{add.name}.sum")
        rounded = self._round(total, f"{add.name}.code", step, kind=SKIP_KIND)
        self.graph.node("Identity", [rounded], add.name)

    def _skip_step(self, add: Add) -> float:
        """Return the int16 step of a sum: from the quantizer behind it, through a nonlinearity too, or behind the next sum.

        Raises:
            ValueError: there is neither.
        """
        for quantize, _function in readers(self.program, add.name):
            return float(quantize.step) / SKIP_STEPS
        for consumer in self.program.consumers(add.name):
            if isinstance(consumer, Add):
                return self._skip_step(consumer)
        raise ValueError(
            f"format: qdq has no step for the sum {add.name}, which neither a quantizer nor another sum reads; use --format onnx"
        )

    def _round(self, values: str, name: str, step: float, *, kind: "np.dtype[Any]" = CODE_KIND, zero: int = 0) -> str:
        """Write codes and what they stand for, and return the latter's name."""
        graph = self.graph
        constants = [graph.scalar(step), graph.constant(f"{kind}({zero})", kind.type(zero))]
        graph.node("QuantizeLinear", [values, *constants], name)
        return graph.node("DequantizeLinear", [name, *constants], self.codes(name))
