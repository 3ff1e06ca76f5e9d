"""Files of every quantizer that has integers: codes of any range are stored as they are, and never wrap or saturate."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from subfour.export.formats import ONNX_WRITERS
from subfour.export.record import FileFormat
from subfour.export.runtime import RUNTIMES
from subfour.export.verify import Reference, codes_in
from subfour.integer.program import IMAGE, Layer, Program, Quantize
from subfour.quantizers import QuantizerName
from tests.export.files import record_for, turned_program, verified
from tests.integer.programs import random_pixels

INTEGER: tuple[QuantizerName, ...] = ("duq", "duq-offset", "pact-sawb", "lsq", "lsq-plus", "affine")


def model_of(program: Program, file_format: FileFormat) -> onnx.ModelProto:
    return ONNX_WRITERS[file_format](program).write(record_for(program, file_format=file_format))


def is_lopsided(quantize: Quantize) -> bool:
    """Return whether codes lie on both sides of a zero point, more of them above."""
    return quantize.qmin < 0 and quantize.qmax > -quantize.qmin


def largest_code(program: Program) -> int:
    """Return the largest weight code."""
    return max(int(layer.codes.max()) for layer in program.operations if isinstance(layer, Layer))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("quantizer", INTEGER)
def test_the_portable_file_computes_its_program_layer_by_layer(quantizer: QuantizerName, bits: int):
    program = turned_program(quantizer, bits, snapped=False)
    verifier = verified(program, model_of(program, "onnx").SerializeToString())
    layers = {operation.name for operation in program.operations if isinstance(operation, Layer)}
    for runtime in RUNTIMES:
        different = verifier.comparisons[runtime].different_parts
        assert layers.isdisjoint(different)
        assert sum(different.values()) < 10


@pytest.mark.parametrize("quantizer", ["lsq", "affine", "duq-offset", "lsq-plus"])
@pytest.mark.parametrize("bits", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_snapped_network_with_codes_beyond_their_width_is_exact(quantizer: QuantizerName, bits: int):
    program = turned_program(quantizer, bits, snapped=True)
    assert largest_code(program) >= 2 ** (bits - 1)
    verifier = verified(program, model_of(program, "onnx").SerializeToString())
    assert all(verifier.comparisons[runtime].exact for runtime in RUNTIMES)


@pytest.mark.parametrize("file_format", ["onnx", "qdq"])
@pytest.mark.parametrize(("bits", "kind"), [(4, TensorProto.INT8), (8, TensorProto.INT16)])
def test_weight_codes_that_leave_their_width_are_stored_wider(file_format: FileFormat, bits: int, kind: int):
    """LSQ has -8; a negative gain turns it into 8, and -128 into 128."""
    program = turned_program("lsq", bits, snapped=False)
    constants = {tensor.name: tensor for tensor in model_of(program, file_format).graph.initializer}
    assert largest_code(program) == 2 ** (bits - 1)
    kinds = set()
    for layer in program.operations:
        if isinstance(layer, Layer):
            stored = constants[f"{layer.name}.weight"]
            kinds.add(stored.data_type)
            codes = layer.codes.detach().numpy()
            found = numpy_helper.to_array(stored).astype(np.int64)
            assert np.array_equal(found.T if layer.linear and file_format == "onnx" else found, codes)
    assert kind in kinds


@pytest.mark.parametrize("snapped", [False, True])
def test_plain_qdq_stays_close_with_codes_on_both_sides_of_a_zero_point(snapped: bool):
    program = turned_program("affine", 8, snapped=snapped)
    assert any(is_lopsided(quantize) for quantize in program.quantizers)
    run = RUNTIMES["onnxruntime"](model_of(program, "qdq").SerializeToString(), 1)
    pixels = random_pixels().numpy()
    (logits,) = run({IMAGE: pixels}).values()
    expected = Reference(program)(pixels)
    last = program.operations[-1]
    assert isinstance(last, Layer)
    values = expected[f"{last.name}.accumulators"] * last.multiplier.detach().numpy() + last.addend.detach().numpy()
    assert np.abs(logits - values).max() < 0.05 * np.ptp(values)


@pytest.mark.parametrize(("quantizer", "bits"), [("lsq", 4), ("lsq", 8), ("affine", 4), ("duq-offset", 4), ("lsq-plus", 4)])
def test_qonnx_s_own_executor_gives_the_same_codes(quantizer: QuantizerName, bits: int):
    program = turned_program(quantizer, bits, snapped=True)
    model = ModelWrapper(model_of(program, "qonnx")).transform(InferShapes())
    pixels = random_pixels(1).numpy()
    expected, got = Reference(program)(pixels), execute_onnx(model, {IMAGE: pixels}, return_full_exec_context=True)
    for quantize in program.quantizers:
        assert np.array_equal(got[quantize.name], expected[quantize.name])


def test_stored_codes_are_read_without_their_zero_point():
    program = turned_program("affine", 8, snapped=False)
    shifted = next(quantize for quantize in program.quantizers if is_lopsided(quantize))
    assert codes_in(shifted, np.array([0, 255], np.uint8)).tolist() == [shifted.qmin, shifted.qmax]
