"""ONNX files that are whole, but not what a command asks for."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from subfour.export.record import METADATA
from subfour.export.seal import UNSEALED, seal

ANOTHER = "another network"
"""Sound for every command but verify, which is told a run that gives other weights."""

FOREIGN = ("foreign", "external numbers", "our record", "our record, sealed", "empty record", "no record")
"""No command takes them."""


def strangers(exported: Path) -> dict[str, bytes]:
    """Return them by name.

    Args:
        exported: a file of ours.
    """
    model = onnx.load(exported)
    record = {entry.key: entry.value for entry in model.metadata_props}[METADATA]
    unsealed = json.dumps({**json.loads(record), "sha256": UNSEALED})
    foreign = foreign_model()
    files = {"foreign": foreign.SerializeToString(), "external numbers": external_model().SerializeToString()}
    helper.set_model_props(foreign, {METADATA: unsealed})
    files["our record"] = foreign.SerializeToString()
    files["our record, sealed"] = seal(foreign.SerializeToString())
    helper.set_model_props(foreign, {METADATA: "{}"})
    files["empty record"] = foreign.SerializeToString()
    del model.metadata_props[:]
    files["no record"] = model.SerializeToString()
    helper.set_model_props(model, {METADATA: unsealed})
    files[ANOTHER] = seal(with_another_weight(model).SerializeToString())
    assert set(files) == {*FOREIGN, ANOTHER}
    return files


def foreign_model() -> onnx.ModelProto:
    """Return a sound model that nobody here has written."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "foreign", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def external_model() -> onnx.ModelProto:
    """Return a model that asks for numbers in a file outside its folder."""
    model = foreign_model()
    tensor = TensorProto(name="z", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    model.graph.initializer.append(tensor)
    model.graph.node[0].op_type = "Add"
    model.graph.node[0].input.append("z")
    return model


def with_another_weight(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose largest constant of floats is another, as if another run had given it."""
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    tensor = max(floats, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = values.flat[0] * np.float32(1.01) + np.float32(0.01)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model
