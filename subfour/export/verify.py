"""Whether executors compute what a program says, code by code: end to end, and layer by layer.

End to end, the answers of a file as it stands are compared: an image is exact when the accumulators of the last layer are the
reference's (no quantizer follows them, so there are no codes). A copy of the file whose codes are all outputs tells where the
first difference is.

Layer by layer, each part of the file between codes runs alone on the reference's codes, so that no difference is carried on. A
part's codes enter as floats through a QuantizeLinear of step 1: the runtime sees a quantized network and takes the kernels that
it takes in the whole file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from subfour.export.runtime import RUNTIMES, Arrays, Run, RuntimeName
from subfour.integer import reference
from subfour.integer.execute import accumulate, execute
from subfour.integer.lower import lower
from subfour.integer.program import IMAGE, Add, Layer, Lookup, Program, Quantize

LOGITS = "logits"
"""Where answers differ though no code does."""


@dataclass(kw_only=True, slots=True)
class Comparison:
    """What one executor did, beside the reference."""

    images: int = 0
    exact_images: int = 0
    """With the reference's accumulators in the last layer."""
    correct: int = 0
    """Images whose label has the largest logit."""
    codes: int = 0
    """Compared, end to end."""
    different_codes: dict[str, int] = field(default_factory=dict)
    """By quantizer, in the network's order, where there are any."""
    parts: int = 0
    """Compared layer by layer."""
    different_parts: dict[str, int] = field(default_factory=dict)
    """Numbers that differ, by layer or quantizer, where there are any."""

    @property
    def exact(self) -> bool:
        """Whether nothing differs anywhere."""
        return self.exact_images == self.images and not self.different_codes and not self.different_parts

    @property
    def first_difference(self) -> str | None:
        """The quantizer where the first code differs, end to end."""
        if self.different_codes:
            return next(iter(self.different_codes))
        return None if self.exact_images == self.images else LOGITS


class Reference:
    """The numbers that a program defines: integers alone where it is snapped, float64 where it is not."""

    def __init__(self, program: Program) -> None:
        """Lower the program, if it is snapped."""
        self.program = program
        self._lowered = lower(program) if program.snapped else None

    def __call__(self, pixels: NDArray[np.uint8]) -> Arrays:
        """Return codes and values by name, and each layer's accumulators as NAME.accumulators."""
        if self._lowered is not None:
            return reference.run(self._lowered.operations, self._lowered.arrays, pixels)
        with torch.no_grad():
            values = execute(self.program, torch.from_numpy(pixels))
            sums = {
                f"{layer.name}.accumulators": accumulate(layer, values[layer.inputs[0]])
                for layer in self.program.operations
                if isinstance(layer, Layer)
            }
        return {name: value.numpy() for name, value in (values | sums).items()}


def accumulators_of(layer: Layer, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the integers that a layer's values stand for: (value - addend) / multiplier, rounded."""
    shape = (-1,) if layer.linear else (-1, 1, 1)
    multiplier, addend = (t.detach().double().numpy().reshape(shape) for t in (layer.multiplier, layer.addend))
    integers: NDArray[np.float64] = np.rint((values - addend) / multiplier)
    return integers


class Verifier:
    """Compares executors of one file with its program, batch by batch."""

    def __init__(self, content: bytes, program: Program, *, runtimes: Sequence[RuntimeName], threads: int = 0) -> None:
        """Open the file in each runtime.

        Args:
            content: of the file.
            program: that it was exported from.
            runtimes: which to compare.
            threads: for each; 0 leaves it to the runtime.

        Raises:
            ValueError: the file was exported from another network, or a runtime is not installed.
        """
        self.program, self.threads = program, threads
        self.model = onnx.load_from_string(content)
        check_constants(self.model, program)
        self.reference = Reference(program)
        probed = with_outputs(self.model, [quantize.name for quantize in program.quantizers]).SerializeToString()
        self.runs: dict[str, tuple[Run, Run]] = {
            name: (RUNTIMES[name](content, threads), RUNTIMES[name](probed, threads)) for name in runtimes
        }
        self.comparisons: dict[str, Comparison] = {name: Comparison() for name in ("reference", *runtimes)}

    def end_to_end(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Arrays:
        """Compare one batch, and return the reference's numbers.

        Args:
            pixels: uint8 [N, 3, H, W].
            labels: int64 [N].
        """
        expected = self.reference(pixels)
        answer = self._answer(expected)
        self._count("reference", answer, expected, labels)
        codes = {quantize.name: expected[quantize.name] for quantize in self.program.quantizers}
        for name, (run, probed) in self.runs.items():
            self._count(name, run({IMAGE: pixels})[self.program.output], expected, labels)
            got = probed({IMAGE: pixels})
            self._compare_codes(name, {key: got[key] for key in codes}, codes)
        return expected

    def torch(self, name: str, logits: Tensor, codes: Mapping[str, Tensor], expected: Arrays, labels: NDArray[np.int64]) -> None:
        """Count what torch computed for one batch.

        Args:
            name: of the executor.
            logits: [N, classes].
            codes: by quantizer; empty where they are not known.
            expected: from `end_to_end`.
            labels: int64 [N].
        """
        self.comparisons.setdefault(name, Comparison())
        self._count(name, logits.numpy(), expected, labels)
        self._compare_codes(name, {key: value.numpy() for key, value in codes.items()}, expected)

    def layer_by_layer(self, pixels: NDArray[np.uint8], expected: Arrays) -> None:
        """Compare every part of the file on its own.

        Args:
            pixels: a few images.
            expected: of them, from `end_to_end`.
        """
        operations = self.program.operations
        cuts = {operation.name: operation for operation in operations if isinstance(operation, Lookup | Quantize | Add)}
        feeds = {IMAGE: pixels, **{f"{name}.fed": expected[name].astype(np.float32) for name in cuts}}
        layers = {operation.name: operation for operation in operations if isinstance(operation, Layer)}
        codes = [operation.name for operation in operations if isinstance(operation, Lookup | Quantize)]
        for targets in (codes, list(layers)):  # apart: a layer whose value is asked for is not merged with its quantizer
            parts = cut_apart(self.model, cuts, expected, targets).SerializeToString()
            for runtime in self.runs:
                got = RUNTIMES[runtime](parts, self.threads)(feeds)
                comparison = self.comparisons[runtime]
                for target in targets:
                    if target in layers:
                        different = accumulators_of(layers[target], got[target]) != expected[f"{target}.accumulators"]
                    else:
                        different = got[target] != expected[target]
                    comparison.parts += 1
                    if different.any():
                        comparison.different_parts[target] = int(different.sum())

    def _answer(self, expected: Arrays) -> NDArray[Any]:
        """Return the reference's logits."""
        last = self.program.named(self.program.output)
        assert isinstance(last, Layer)
        multiplier, addend = (values.detach().double().numpy() for values in (last.multiplier, last.addend))
        logits: NDArray[Any] = expected[f"{last.name}.accumulators"] * multiplier + addend
        return logits

    def _count(self, name: str, logits: NDArray[Any], expected: Arrays, labels: NDArray[np.int64]) -> None:
        last = self.program.named(self.program.output)
        assert isinstance(last, Layer)
        comparison = self.comparisons[name]
        same = accumulators_of(last, logits) == expected[f"{last.name}.accumulators"]
        comparison.images += len(labels)
        comparison.exact_images += int(same.all(axis=1).sum())
        comparison.correct += int((logits.argmax(axis=1) == labels).sum())

    def _compare_codes(self, name: str, got: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
        comparison = self.comparisons[name]
        for quantizer, codes in got.items():
            different = int((codes != expected[quantizer]).sum())
            comparison.codes += codes.size
            if different:
                comparison.different_codes[quantizer] = comparison.different_codes.get(quantizer, 0) + different


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of a model that gives more of its values."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def cut_apart(
    model: onnx.ModelProto, cuts: Mapping[str, Lookup | Quantize | Add], values: Arrays, targets: Iterable[str]
) -> onnx.ModelProto:
    """Return a model whose parts all run alone: what codes and sums have been, and what reads them, are apart.

    Codes and sums enter as NAME.fed, as float32 [N, ...].

    Args:
        model: written by a `Writer`.
        cuts: the operations whose results are cut off.
        values: of these operations, for their shapes.
        targets: values that are its outputs.
    """
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    graph = apart.graph
    for node in graph.node:
        node.input[:] = [f"{name}.entered" if name in cuts else name for name in node.input]
    one = numpy_helper.from_array(np.float32(1), "fed.step")
    graph.initializer.append(one)
    for kind in (np.int8, np.uint8):
        graph.initializer.append(numpy_helper.from_array(np.array(0, kind), f"fed.{kind.__name__}"))
    entering = []
    for name, cut in cuts.items():
        shape = ["N", *values[name].shape[1:]]
        graph.input.append(helper.make_tensor_value_info(f"{name}.fed", TensorProto.FLOAT, shape))
        if isinstance(cut, Add):
            entering.append(helper.make_node("Identity", [f"{name}.fed"], [f"{name}.entered"]))
        else:
            zero = f"fed.{'int8' if cut.qmin < 0 else 'uint8'}"
            entering.append(helper.make_node("QuantizeLinear", [f"{name}.fed", one.name, zero], [f"{name}.entered"]))
    nodes = [*entering, *graph.node]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in targets)
    return apart
