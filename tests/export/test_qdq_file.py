import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from subfour.export.qdq_file import SKIP_STEPS, QdqWriter
from subfour.export.runtime import RUNTIMES
from subfour.integer.program import Activate, Add, Layer, Program, readers
from tests.export.files import content_of, model_of, program_of, record_for, verified
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


def with_activated_sums(program: Program) -> Program:
    """Return a program in which a ReLU stands between every sum and what reads it."""
    operations = []
    renamed: dict[str, str] = {}
    for operation in program.operations:
        operations.append(replace(operation, inputs=tuple(renamed.get(name, name) for name in operation.inputs)))
        if isinstance(operation, Add):
            renamed[operation.name] = f"{operation.name}.relu"
            operations.append(Activate(name=f"{operation.name}.relu", inputs=(operation.name,), function="relu"))
    return replace(program, operations=tuple(operations))


def test_a_sum_that_enters_a_nonlinearity_has_the_step_of_the_quantizer_behind_it():
    """As in ResNets and RegNets."""
    program = with_activated_sums(program_of(TINY, snapped=False))
    sums = [operation for operation in program.operations if isinstance(operation, Add)]
    assert sums
    model = QdqWriter(program).write(record_for(program, file_format="qdq"))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    steps = {node.output[0]: constants[node.input[1]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for add in sums:
        ((quantize, function),) = readers(program, add.name)
        assert function == "relu"
        assert steps[f"{add.name}.code"] == np.float32(float(quantize.step) / SKIP_STEPS)


def test_a_sum_that_nothing_quantizes_is_named():
    program = program_of(TINY, snapped=False)
    *operations, last = program.operations
    source = next(operation.name for operation in operations if isinstance(operation, Layer))
    alone = replace(program, operations=(*operations, Add(name="total", inputs=(source, source)), last))
    with pytest.raises(ValueError, match=r"format: qdq has no step for the sum total, .* use --format onnx"):
        QdqWriter(alone).write(record_for(alone, file_format="qdq"))


def with_dead_channels(program: Program) -> Program:
    """Return a program whose layers have two channels of multiplier 0 each, the second of addend 0 too."""

    def killed(layer: Layer) -> Layer:
        multiplier, addend = layer.multiplier.detach().clone(), layer.addend.detach().clone()
        multiplier[:2], addend[0], addend[1] = 0, 0.7, 0
        return replace(layer, multiplier=multiplier, addend=addend)

    changed = (killed(operation) if isinstance(operation, Layer) else operation for operation in program.operations)
    return replace(program, operations=tuple(changed))


def test_a_channel_of_multiplier_0_gives_its_addend():
    """And no warning of a division."""
    program = with_dead_channels(program_of(TINY, snapped=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = QdqWriter(program).write(record_for(program, file_format="qdq"))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for layer in program.operations:
        if isinstance(layer, Layer):
            bias, scale = constants[f"{layer.name}.bias"], constants[f"{layer.name}.bias.scale"]
            assert bias[0] * scale[0] == np.float32(0.7)
            assert (bias[1], scale[1]) == (0, 1)
            assert not constants[f"{layer.name}.weight"][:2].astype(int).any()
            assert np.isfinite(constants[f"{layer.name}.scale"]).all()
