import onnx
import pytest
from onnx import TensorProto

from subfour.export.runtime import RUNTIMES
from subfour.integer.program import Layer
from tests.export.files import content_of, model_of, program_of, verified
from tests.integer.programs import random_pixels

TINY = "subfour/tiny_mobilenet_v3"


@pytest.mark.parametrize("snapped", [False, True])
def test_every_part_comes_close_to_the_reference(snapped: bool):
    """Biases and skips are rounded: a few codes of 4 bits in a hundred differ, layer by layer."""
    program = program_of(TINY, snapped=snapped)
    verifier = verified(program, content_of(TINY, snapped=snapped, file_format="qdq"))
    expected = verifier.reference(random_pixels().numpy())
    sizes = {quantize.name: expected[quantize.name].size for quantize in program.quantizers if quantize.bits == 4}
    for runtime in RUNTIMES:
        different = verifier.comparisons[runtime].different_parts
        assert sum(different.get(name, 0) for name in sizes) < 0.05 * sum(sizes.values())


def test_nothing_but_standard_operators_and_true_scales():
    """What is quantized with a scale is dequantized with it."""
    model = model_of(TINY, snapped=True, file_format="qdq")
    assert {opset.domain for opset in model.opset_import} == {""}
    scales = {node.output[0]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in scales:
            assert node.input[1] == scales[node.input[0]]


def test_weights_are_packed_biases_are_int32_and_sums_int16():
    model = model_of(TINY, snapped=True, file_format="qdq")
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for layer in program_of(TINY, snapped=True).operations:
        if isinstance(layer, Layer):
            assert kinds[f"{layer.name}.weight"] == TensorProto.INT4
            assert kinds[f"{layer.name}.bias"] == TensorProto.INT32
    sums = [node for node in model.graph.node if node.op_type == "Add" and node.output[0].endswith(".sum")]
    assert sums
    shapes = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in shapes.graph.value_info}
    assert {types[f"{node.output[0].removesuffix('.sum')}.code"] for node in sums} == {TensorProto.INT16}
