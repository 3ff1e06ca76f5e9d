import numpy as np
import onnx
import pytest
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from subfour.export.qonnx_file import DOMAIN
from subfour.export.verify import Reference, accumulators_of
from subfour.integer.program import IMAGE, Layer
from tests.export.files import model_of, program_of
from tests.integer.programs import random_pixels

TINY = "subfour/tiny_mobilenet_v3"


@pytest.mark.parametrize("name", [TINY, pytest.param("torchvision/mobilenet_v2", marks=pytest.mark.slow)])
def test_qonnx_s_own_executor_gives_the_reference_s_codes(name: str):
    program = program_of(name, snapped=True)
    model = ModelWrapper(model_of(name, snapped=True, file_format="qonnx")).transform(InferShapes())
    pixels = random_pixels(1).numpy()
    expected = Reference(program)(pixels)
    got = execute_onnx(model, {IMAGE: pixels}, return_full_exec_context=True)
    for quantize in program.quantizers:
        assert np.array_equal(got[quantize.name], expected[quantize.name])
    last = program.operations[-1]
    assert isinstance(last, Layer)
    assert np.array_equal(accumulators_of(last, got[last.name]), expected[f"{last.name}.accumulators"])


def test_scales_zero_points_and_widths_are_scalars():
    model = model_of(TINY, snapped=False, file_format="qonnx")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quants = [node for node in model.graph.node if node.op_type == "Quant"]
    assert {node.domain for node in quants} == {DOMAIN}
    assert {constants[name].shape for node in quants for name in node.input[1:]} == {()}
    assert {float(constants[node.input[3]]) for node in quants} == {4.0, 8.0}
