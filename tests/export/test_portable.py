from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from subfour.analysis.cost import model_bytes
from subfour.export.formats import ONNX_WRITERS
from subfour.export.portable import PortableWriter
from subfour.export.record import FileFormat
from subfour.export.runtime import RUNTIMES, RuntimeName
from subfour.export.untrained import untrained_network
from subfour.integer.build import build_program
from subfour.integer.program import IMAGE, Layer, Lookup
from tests.convert.stock_networks import NAMES as ALL_NAMES
from tests.export.files import content_of, model_of, program_of, record_for, verified
from tests.integer.programs import NAMES, NETWORKS, PREPROCESSING, random_pixels, stock_programs

TINY = "subfour/tiny_mobilenet_v3"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_snapped_network_has_the_reference_s_codes_in_every_runtime(name: str):
    program = program_of(name, snapped=True)
    verifier = verified(program, content_of(name, snapped=True))
    for runtime in RUNTIMES:
        comparison = verifier.comparisons[runtime]
        assert comparison.exact
        assert (comparison.images, comparison.exact_images) == (2, 2)
        assert comparison.codes > 10_000
        assert comparison.parts > len(program.quantizers)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_is_not_snapped_has_the_reference_s_accumulators_layer_by_layer(name: str):
    """A code may round the other way where float32 and float64 differ; an accumulator may not."""
    program = program_of(name, snapped=False)
    verifier = verified(program, content_of(name, snapped=False))
    layers = {operation.name for operation in program.operations if isinstance(operation, Layer)}
    for runtime in RUNTIMES:
        different = verifier.comparisons[runtime].different_parts
        assert layers.isdisjoint(different)
        assert sum(different.values()) < 10


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ALL_NAMES) - set(NAMES)))
def test_every_stock_network_is_exact_once_snapped(name: str):
    verifier = verified(program_of(name, snapped=True), content_of(name, snapped=True))
    assert all(verifier.comparisons[runtime].exact for runtime in RUNTIMES)


@pytest.mark.parametrize(
    ("bits", "kind"),
    [(2, TensorProto.INT4), (3, TensorProto.INT4), (4, TensorProto.INT4), (5, TensorProto.INT8), (8, TensorProto.INT8)],
)
def test_weights_are_stored_as_narrow_as_the_format_allows(bits: int, kind: int):
    program = stock_programs(TINY, bits).built
    model = PortableWriter(program).write(record_for(program))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer in program.operations:
        if isinstance(layer, Layer):
            tensor = constants[f"{layer.name}.weight"]
            codes = layer.codes.T if layer.linear else layer.codes
            assert tensor.data_type == kind
            assert len(tensor.raw_data) == ((codes.numel() + 1) // 2 if kind == TensorProto.INT4 else codes.numel())
            assert np.array_equal(numpy_helper.to_array(tensor).astype(np.int8), codes.detach().numpy().astype(np.int8))


@pytest.mark.parametrize("file_format", ["onnx", "qdq"])
def test_no_codes_are_int8_whose_kernels_halve_weights_without_vnni(file_format: FileFormat):
    """On processors with VNNI no runtime shows the difference."""
    model = model_of(TINY, snapped=True, file_format=file_format)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    zeros = {kinds[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert TensorProto.UINT8 in zeros
    assert TensorProto.INT8 not in zeros


@pytest.mark.parametrize("bits", [4, 7, 8])
def test_layers_whose_products_in_pairs_exceed_16_bits_stay_in_float(bits: int):
    """On processors with VNNI no runtime shows the difference."""
    program = stock_programs(TINY, bits).built
    made_by = {node.output[0]: node.op_type for node in PortableWriter(program).write(record_for(program)).graph.node}
    in_float = {name for name, kind in made_by.items() if kind == "Identity"}
    sources = {layer.inputs[0] for layer in program.operations if isinstance(layer, Layer)}
    quantizers = [quantize for quantize in program.quantizers if quantize.name in sources]
    assert in_float >= ({f"{quantize.name}.float" for quantize in quantizers if quantize.qmax == 255} if bits == 8 else set())
    assert bool(in_float) == (bits == 8)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_any_number_of_images_runs(runtime: RuntimeName):
    run = RUNTIMES[runtime](content_of(TINY, snapped=True), 1)
    pixels = random_pixels(3).numpy()
    (together,) = run({IMAGE: pixels}).values()
    for index in range(3):
        assert np.array_equal(run({IMAGE: pixels[index : index + 1]}).popitem()[1][0], together[index])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_pixels_whose_codes_are_no_line_go_through_a_table(runtime: RuntimeName):
    program = program_of(TINY, snapped=True)
    first = program.operations[0]
    assert isinstance(first, Lookup)
    bent = replace(program, operations=(replace(first, table=first.table.clamp(max=5)), *program.operations[1:]))
    model = PortableWriter(bent).write(record_for(bent))
    assert "Gather" in {node.op_type for node in model.graph.node}
    assert verified(bent, model.SerializeToString()).comparisons[runtime].exact


def test_values_and_codes_have_the_program_s_names():
    program = program_of(TINY, snapped=True)
    outputs = {name for node in model_of(TINY, snapped=True).graph.node for name in node.output}
    assert {quantize.name for quantize in program.quantizers} <= outputs
    assert {operation.name for operation in program.operations if isinstance(operation, Layer)} <= outputs


@pytest.mark.parametrize("file_format", ONNX_WRITERS)
@pytest.mark.parametrize("snapped", [False, True])
def test_files_are_of_opset_21_with_uint8_pixels(file_format: str, snapped: bool):
    model = model_of(TINY, snapped=snapped, file_format=file_format)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == 21
    (image,) = model.graph.input
    assert image.type.tensor_type.elem_type == TensorProto.UINT8
    onnx.checker.check_model(model, full_check=file_format != "qonnx")


@pytest.mark.parametrize(
    ("name", "largest"), [("torchvision/mobilenet_v2", 2_000_000), ("torchvision/mobilenet_v3_large", 3_100_000)]
)
def test_four_bit_networks_of_a_thousand_classes_are_small(name: str, largest: int):
    """Size does not depend on the weights, nor on the image."""
    network = untrained_network(name, PREPROCESSING)
    with torch.no_grad():
        program = build_program(network, PREPROCESSING, dtype=torch.float64)
    classes = tuple(f"class {number}" for number in range(1000))
    model = PortableWriter(program).write(record_for(program, classes=classes))
    constants = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert model.ByteSize() <= largest
    assert constants == pytest.approx(model_bytes(network), rel=0.03)
