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

INT4 = np.dtype(ml_dtypes.int4)
"""Two to a byte. (INT2, opset 25: OpenVINO 2026.4 does not read it.)"""

WEIGHT_KINDS = {4: INT4, 8: np.dtype(np.int8), 16: np.dtype(np.int16)}
"""What weight codes are stored as, by width."""

CODE_KIND = np.dtype(np.uint8)
"""What codes of activations are stored as, signed ones too: each less its quantizer's qmin, which makes -qmin the zero point.

int8 would not be exact everywhere: on processors without VNNI, OpenVINO's kernels for it halve the weight codes and round them,
to keep the sum of two products in 16 bits (on AVX2, 37 % of the codes of CIFAR-10's W4A4 MobileNet-v2 came out otherwise)."""

SCALAR = "float32"
"""What the name of a scalar begins with; its value follows, in brackets."""

IMAGE_MEANING = "RGB pixels 0..255 as decoded, not normalised: the file does that"
LOGITS_MEANING = "logits; their softmax are the probabilities of the classes in the metadata, in that order"
"""What a viewer shows beside input and output."""


def weight_kind(codes: NDArray[Any], bits: int) -> "np.dtype[Any]":
    """Return the narrowest kind of `bits` or more that holds weight codes.

    They may need one bit more than their quantizer: where its grid has -2^(bits - 1), a channel that a negative batch norm
    gain turns round (integer/fold.py) has 2^(bits - 1).
    """
    return next(
        kind
        for width, kind in WEIGHT_KINDS.items()
        if width >= bits and -(2 ** (width - 1)) <= codes.min() and codes.max() < 2 ** (width - 1)
    )


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
        return self.constant(f"{SCALAR}({value!r})", np.float32(value))

    def weight(self, name: str, codes: NDArray[Any], bits: int) -> str:
        """Add weight codes as narrow as the file format and the codes allow, and return the name."""
        return self.constant(name, codes.astype(np.int16).astype(weight_kind(codes, bits)))

    def finish(self, record: Record, output: str, *, domains: tuple[str, ...], batch: int | str) -> onnx.ModelProto:
        """Return the model, checked: uint8 pixels [N, 3, H, W] in, logits [N, classes] out.

        Args:
            record: for the metadata; its preprocessing has the image size.
            output: name of the logits.
            domains: of operators that are not ONNX's own; such a model's shapes cannot be inferred by the checker.
            batch: images at once; a name leaves it open.
        """
        size = record.preprocessing.image_size
        image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [batch, 3, size, size], doc_string=IMAGE_MEANING)
        logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, len(record.classes)], doc_string=LOGITS_MEANING)
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
