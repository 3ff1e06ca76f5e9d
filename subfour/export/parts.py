"""A file's graph with more outputs, or cut apart so that each part between codes runs alone on codes it is given."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from subfour.export.graph import CODE_KIND
from subfour.export.runtime import Arrays
from subfour.integer.program import Add, Lookup, Quantize


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
    one = numpy_helper.from_array(np.array(1, np.float32), "fed.step")
    graph.initializer.append(one)
    entering = []
    for name, cut in cuts.items():
        shape = ["N", *values[name].shape[1:]]
        graph.input.append(helper.make_tensor_value_info(f"{name}.fed", TensorProto.FLOAT, shape))
        if isinstance(cut, Add):
            entering.append(helper.make_node("Identity", [f"{name}.fed"], [f"{name}.entered"]))
        else:
            zero = numpy_helper.from_array(np.array(-cut.qmin, CODE_KIND), f"{name}.fed.zero")
            graph.initializer.append(zero)
            entering.append(helper.make_node("QuantizeLinear", [f"{name}.fed", one.name, zero.name], [f"{name}.entered"]))
    nodes = [*entering, *graph.node]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in targets)
    return apart
