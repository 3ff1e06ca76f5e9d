from dataclasses import replace

import numpy as np
import pytest
import torch

from subfour.integer import reference
from subfour.integer.execute import accumulate, execute
from subfour.integer.lower import NEVER, lower
from subfour.integer.program import Layer, Program
from subfour.quantizers import QuantizerName
from tests.integer.programs import FEW, WIDTHS, Programs, programs_of, random_pixels, stock_programs
from tests.integer.test_settle import network_with_gains


def compare(programs: Programs) -> None:
    """Raise unless integers alone give every code and every accumulator that torch gives in float32."""
    program, pixels = programs.settled, random_pixels(8)
    lowered = lower(program)
    found = reference.run(lowered.operations, lowered.arrays, pixels.numpy())
    with torch.no_grad():
        expected = execute(program, pixels)
    for operation in lowered.operations:
        if "range" in operation:
            least, most = operation["range"]
            values = found[operation["name"]]
            assert least <= values.min(), operation["name"]
            assert values.max() <= most, operation["name"]
    for quantize in program.quantizers:
        assert np.array_equal(found[quantize.name], expected[quantize.name].numpy()), quantize.name
    for layer in program.operations:
        if isinstance(layer, Layer):
            sums = accumulate(layer, expected[layer.inputs[0]])
            assert np.array_equal(found[f"{layer.name}.accumulators"], sums.numpy()), layer.name
            if layer.integer:
                assert np.array_equal(found[layer.name], expected[layer.name].numpy()), layer.name
    logits = reference.logits(lowered.arrays, found[f"{program.output}.accumulators"])
    assert np.array_equal(logits, expected[program.output].double().numpy())


@pytest.mark.parametrize(("name", "bits"), WIDTHS)
def test_integers_alone_give_every_code_and_accumulator(name: str, bits: int):
    compare(stock_programs(name, bits))


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("quantizer", ["pact-sawb", "duq-offset", "lsq-plus"])
def test_codes_that_begin_anywhere_are_integers_too(name: str, quantizer: QuantizerName):
    """PACT's at 0, not at -3/8 behind h-swish; those of the others at a learned offset."""
    compare(stock_programs(name, 4, quantizer))


@pytest.mark.parametrize("gain", [0.0, 1e-11, -1e-8])
def test_channels_that_hardly_move_are_integers_too(gain: float):
    """Their thresholds lie beyond int32, those of other channels do not."""
    torch.manual_seed(0)
    compare(programs_of(network_with_gains(gain)))


def test_all_constants_are_integers_but_the_two_that_scale_the_logits():
    lowered = lower(stock_programs("torchvision/mobilenet_v3_small").settled)
    real = {name for name, array in lowered.arrays.items() if not np.issubdtype(array.dtype, np.integer)}
    assert real == {"logits.multiplier", "logits.addend"}
    for operation in lowered.operations:
        for key, value in operation.items():
            assert isinstance(value, int | str | list), (operation["name"], key)
    assert {operation["op"] for operation in lowered.operations} <= reference.OPERATIONS.keys()
    thresholds = [array for name, array in lowered.arrays.items() if name.endswith((".up", ".down"))]
    assert thresholds
    for array in thresholds:
        assert (np.diff(array.astype(np.int64), axis=1) >= 0).all()
        assert np.abs(array.astype(np.int64)).max(initial=0) <= NEVER


def test_all_but_sums_over_positions_have_a_range():
    """Of codes it is the quantizer's own; of accumulators what weights and codes reach at most."""
    lowered = lower(stock_programs("torchvision/mobilenet_v3_small", 4).settled)
    assert {operation["op"] for operation in lowered.operations if "range" not in operation} == {"sum"}
    inside = [operation["range"] for operation in lowered.operations if operation["name"] == "features.0.0.input"]
    assert inside == [[-127, 127]]
    assert {tuple(operation["range"]) for operation in lowered.operations if operation["op"] == "threshold"} <= {
        (0, 15),
        (0, 255),
    }


def test_a_program_that_is_not_snapped_is_refused():
    program = stock_programs("subfour/tiny_mobilenet_v3").built
    with pytest.raises(ValueError, match=r"program: it is not snapped, .* --snap"):
        lower(program)


def test_a_constant_that_is_no_integer_is_our_own_error():
    program = stock_programs("subfour/tiny_mobilenet_v3").settled
    layer = next(operation for operation in program.operations if isinstance(operation, Layer) and operation.integer)
    broken = replace(layer, multiplier=layer.multiplier + 0.5)
    operations = tuple(broken if operation is layer else operation for operation in program.operations)
    with pytest.raises(AssertionError, match="not an integer"):
        lower(Program(operations=operations, snapped=True))
