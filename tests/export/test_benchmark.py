import copy
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from subfour.data.preprocess import normalize
from subfour.export.benchmark import BASE, benchmark, interleaved_medians, static_int8
from subfour.export.floating import FloatWriter
from subfour.export.runtime import RUNTIMES
from subfour.integer.program import IMAGE
from subfour.layers import quant_layers
from subfour.ops import FLOAT_BITS
from tests.export.files import content_of, program_of, record_for
from tests.integer.programs import PREPROCESSING, random_pixels, stock_programs

TINY = "subfour/tiny_mobilenet_v3"


def test_calls_take_turns_and_the_median_counts():
    order = []
    durations = {"a": iter([0.0] * 3 + [0.05, 0.0, 0.0]), "b": iter([0.0] * 6)}

    def call(name: str) -> None:
        order.append(name)
        time.sleep(next(durations[name]))

    medians = interleaved_medians({name: lambda name=name: call(name) for name in "ab"}, repeats=3)
    assert order == ["a", "b"] * 6
    assert medians["a"] < 0.02  # the one slow call does not


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v2", "subfour/mobilenet_v1"])
def test_the_float_file_is_the_network_without_activation_quantizers(name: str):
    """But for its pixels: a line through their codes stands for the normalisation."""
    programs, pixels = stock_programs(name), random_pixels()
    record = record_for(programs.built)
    run = RUNTIMES["onnxruntime"](FloatWriter(programs.built).write(record).SerializeToString(), 1)
    model = copy.deepcopy(programs.model)
    for layer in quant_layers(model).values():
        layer.activation_quantizer.bits = FLOAT_BITS
    with torch.no_grad():
        expected = model(normalize(pixels, PREPROCESSING)).numpy()
    got = run({IMAGE: pixels.numpy()})[programs.built.output]
    assert np.abs(got - expected).max() < 0.01 * np.abs(expected).max()


def test_standard_int8_is_made_of_it_and_runs():
    program = program_of(TINY, snapped=False)
    record = record_for(program)
    content = static_int8(FloatWriter(program).write(record).SerializeToString(), record)
    graph = onnx.load_from_string(content).graph
    zero_points = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert {tensor.data_type for tensor in graph.initializer if tensor.name in zero_points} == {onnx.TensorProto.UINT8}
    for open_in in RUNTIMES.values():
        assert open_in(content, 1)({IMAGE: random_pixels().numpy()})[program.output].shape == (2, 10)


def test_every_executor_is_timed_at_every_batch_size():
    record = replace(record_for(program_of(TINY, snapped=True)), snapping=None)
    timings = benchmark(content_of(TINY, snapped=True), record, batches=(1, 2), repeats=1)
    assert len(timings) == 12
    assert {timing.executor for timing in timings} == {
        f"{kind} in {runtime}" for kind in ("float", "int8", "subfour") for runtime in RUNTIMES
    }
    assert [timing.ratio for timing in timings if timing.executor == BASE] == [1, 1]
    for timing in timings:
        assert timing.images_per_second == pytest.approx(1000 * timing.batch / timing.milliseconds)
