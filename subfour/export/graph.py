"""An ONNX graph in the making: nodes, constants, packed integers, and the finished, checked model."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from subfour.export.record import METADATA, Record
from subfour.integer.program import IMAGE

OPSET = 21
"""The first with 4-bit integers; onnxruntime 1.32 and OpenVINO 2026.4 read it."""

IR_VERSION = 10
"""Goes with opset 21."""

PACKED_BITS = 4
"""Weights up to this width are stored two to a byte. (INT2, opset 25: OpenVINO 2026.4 does not read it.)"""


class Graph:
    """Collects nodes and constants; every value has a name."""

    def __init__(self) -> None:
        """Start empty."""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: NDArray[Any] | np.generic) -> str:
        """Add a constant, or find it: one name always means one constant. Return the name."""
        self._constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array).reshape(np.shape(array)), name))
        return name

    def scalar(self, value: float) -> str:
        """Add a float32 scalar that is named after its value, and return the name."""
        return self.constant(f"float32({value!r})", np.float32(value))

    def packed(self, name: str, codes: NDArray[np.int8], bits: int) -> str:
        """Add weight codes as narrow as the file format allows, and return the name."""
        return self.constant(name, codes if bits > PACKED_BITS else codes.astype(ml_dtypes.int4))

    def finish(self, record: Record, output: str, *, domains: tuple[str, ...], batch: int | str) -> onnx.ModelProto:
        """Return the model, checked: uint8 pixels [N, 3, H, W] in, logits [N, classes] out.

        Args:
            record: for the metadata; its preprocessing has the image size.
            output: name of the logits.
            domains: of operators that are not ONNX's own; such a model's shapes cannot be inferred by the checker.
            batch: images at once; a name leaves it open.
        """
        size = record.preprocessing.image_size
        image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [batch, 3, size, size])
        logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, len(record.classes)])
        graph = helper.make_graph(self._nodes, "subfour", [image], [logits], list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="subfour",
            producer_version=record.version,
        )
        helper.set_model_props(model, {METADATA: record.to_json()})
        onnx.checker.check_model(model, full_check=not domains)
        return model
