from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from subfour.export.comparison import LOGITS, Comparison
from subfour.export.constants import check_constants
from subfour.export.formats import ONNX_WRITERS
from subfour.export.runtime import Arrays
from subfour.export.verify import Reference, Verifier, accumulators_of
from subfour.integer.execute import execute
from subfour.integer.program import IMAGE, Layer, Program, Quantize
from tests.export.files import CLASSES, content_of, model_of, program_of, record_for, verified
from tests.integer.programs import random_pixels

TINY = "subfour/tiny_mobilenet_v3"

FILE = Path("model.onnx")

LAYER = "features.2.block.1.0"
"""In the middle of the network."""


def changed(program: Program) -> Program:
    """Return a program with another addend in one channel of one layer."""
    layer = program.named(LAYER)
    assert isinstance(layer, Layer)
    addend = layer.addend.detach().clone()
    addend[0] += 40 * float(layer.multiplier[0])
    operations = tuple(replace(layer, addend=addend) if operation is layer else operation for operation in program.operations)
    return replace(program, operations=operations)


def test_a_file_with_one_wrong_constant_is_found_out_and_its_layer_named():
    """A fault must show in the images, in the first code behind it, and in exactly the parts that it is in."""
    program = program_of(TINY, snapped=True)
    wrong = changed(program)
    content = ONNX_WRITERS["onnx"](wrong).write(record_for(wrong)).SerializeToString()
    verifier = verified(program, content)
    behind = next(quantize.name for quantize in program.quantizers if program.named(quantize.inputs[0]).inputs[0] == LAYER)
    for runtime in ("onnxruntime", "openvino"):
        comparison = verifier.comparisons[runtime]
        assert not comparison.exact
        assert comparison.first_difference == behind
        assert list(comparison.different_parts) == [behind, LAYER]


def dead(program: Program, *, addend: float) -> Program:
    """Return a program with a channel of multiplier 0 in one layer and in the last, as a batch norm's gain of 0 leaves it."""

    def killed(layer: Layer) -> Layer:
        constants = {"multiplier": layer.multiplier.detach().clone(), "addend": layer.addend.detach().clone()}
        constants["multiplier"][1], constants["addend"][1] = 0, addend
        return replace(layer, **constants)

    names = {LAYER, program.output}
    changed = (killed(layer) if isinstance(layer, Layer) and layer.name in names else layer for layer in program.operations)
    return replace(program, operations=tuple(changed))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_channel_of_multiplier_0_is_compared_by_its_value(runtime: str):
    """Whose accumulators cannot be told: the same value is no difference, another one is."""
    program, other = (dead(program_of(TINY, snapped=False), addend=addend) for addend in (0.3, 0.6))
    content, wrong = (ONNX_WRITERS["onnx"](one).write(record_for(one)).SerializeToString() for one in (program, other))
    comparison = verified(program, content).comparisons[runtime]
    assert not {LAYER, program.output} & comparison.different_parts.keys()
    assert comparison.exact_images == 2
    comparison = verified(program, wrong).comparisons[runtime]
    assert {LAYER, program.output} <= comparison.different_parts.keys()
    assert comparison.exact_images == 0


def test_torch_is_compared_by_its_logits_and_codes():
    program = program_of(TINY, snapped=True)
    verifier = verified(program, content_of(TINY, snapped=True))
    assert verifier.comparisons["torch"].exact_images == 0  # it gave zeros
    assert verifier.comparisons["torch"].first_difference == LOGITS
    assert verifier.comparisons["reference"].exact


def test_the_first_difference_is_the_first_of_the_network_not_the_first_seen():
    program, pixels = program_of(TINY, snapped=True), random_pixels().numpy()
    first, *_, last = (quantize.name for quantize in program.quantizers)
    wrong = iter([last, first])

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        expected, name = Reference(program)(inputs[IMAGE]), next(wrong)
        return {name: expected[name] + 1, program.output: np.zeros((2, len(CLASSES)))}

    verifier = Verifier(content_of(TINY, snapped=True), program, runs={"torch": run}, runtimes=())
    for _ in range(2):
        verifier.end_to_end(pixels, np.zeros(2, dtype=np.int64))
    assert list(verifier.comparisons["torch"].different_codes) == [first, last]
    assert verifier.comparisons["torch"].first_difference == first


def test_the_reference_of_a_network_that_is_not_snapped_is_float64():
    program, pixels = program_of(TINY, snapped=False), random_pixels()
    expected = Reference(program)(pixels.numpy())
    values = execute(program, pixels)
    last = program.operations[-1]
    assert isinstance(last, Layer)
    assert expected[last.name].dtype == np.float64
    assert np.array_equal(accumulators_of(last, values[last.name].detach().numpy()), expected[f"{last.name}.accumulators"])


@pytest.mark.parametrize("file_format", ONNX_WRITERS)
def test_a_file_of_another_network_is_refused(file_format: str):
    program = program_of(TINY, snapped=True)
    expected = ONNX_WRITERS[file_format](changed(program)).write(record_for(program, file_format=file_format))
    with pytest.raises(ValueError, match=f"run: it gives another {LAYER}"):
        check_constants(model_of(TINY, snapped=True, file_format=file_format), expected, path=FILE)
    with pytest.raises(ValueError, match=r"run: it gives .* name the run that model\.onnx was exported from"):
        check_constants(model_of("subfour/mobilenet_v1", snapped=True), expected, path=FILE)


def test_last_bits_that_another_machine_folds_differently_are_let_pass():
    model = onnx.ModelProto()
    model.CopyFrom(model_of(TINY, snapped=False))
    for tensor in model.graph.initializer:
        if tensor.name == f"{LAYER}.addend":
            tensor.CopyFrom(numpy_helper.from_array(np.nextafter(numpy_helper.to_array(tensor), np.float32(9)), tensor.name))
    check_constants(model, model_of(TINY, snapped=False), path=FILE)


@pytest.mark.parametrize("file_format", ["onnx", "qdq"])
@pytest.mark.parametrize(("factor", "passes"), [(1 + 1e-7, True), (1 + 1e-3, False)])
def test_last_bits_of_scalars_are_let_pass_too(file_format: str, factor: float, passes: bool):
    """They are named after their values, so that the file has others."""
    program = program_of(TINY, snapped=False)
    steps = [operation for operation in program.operations if isinstance(operation, Quantize)]
    moved = {step.name: replace(step, step=step.step * factor) for step in steps}
    other = replace(program, operations=tuple(moved.get(operation.name, operation) for operation in program.operations))
    record = record_for(program, file_format=file_format)
    model, expected = (ONNX_WRITERS[file_format](one).write(record) for one in (program, other))
    names, others = ({tensor.name for tensor in one.graph.initializer} for one in (model, expected))
    assert names != others
    if passes:
        check_constants(model, expected, path=FILE)
    else:
        with pytest.raises(ValueError, match="run: it gives"):
            check_constants(model, expected, path=FILE)


def test_a_comparison_is_exact_only_if_nothing_differs():
    assert Comparison(images=2, exact_images=2).exact
    assert not Comparison(images=2, exact_images=1).exact
    assert not Comparison(images=2, exact_images=2, different_codes={"a": 1}).exact
    assert not Comparison(images=2, exact_images=2, different_parts={"a": 1}).exact
