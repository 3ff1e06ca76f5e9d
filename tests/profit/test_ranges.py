import json

import pytest
import torch

from subfour.layers import quant_layers
from subfour.profit.ranges import layer_ranges
from subfour.quantizers import QuantizerName
from subfour.rundir import RunDirectory
from tests.profit.conftest import FinishedRun
from tests.profit.quantized_networks import tiny


@pytest.mark.parametrize("quantizer", ["duq", "pact-sawb"])
def test_the_ranges_are_where_codes_end(quantizer: QuantizerName):
    """A value at the input range has the largest code, whose value is the output range; both are less the offset."""
    model = tiny(4, quantizer=quantizer)
    for name, ranges in layer_ranges(model).items():
        layer = quant_layers(model)[name]
        for role, quantizer_of_layer in (("activation", layer.activation_quantizer), ("weight", layer.weight_quantizer)):
            clipped_at, largest = ranges[role]
            top = torch.tensor(float(quantizer_of_layer.grid.qmax))
            beyond = torch.tensor(1.00001 * clipped_at + quantizer_of_layer.offset)
            assert quantizer_of_layer.codes(beyond) == top
            below = beyond - 0.6 * clipped_at / top
            assert quantizer_of_layer.codes(below) == top - 1
            assert largest + quantizer_of_layer.offset == pytest.approx(quantizer_of_layer.values(top).item(), rel=1e-5)


def test_what_is_float_has_no_ranges():
    model = tiny(4, 8)
    for layer in quant_layers(model).values():
        layer.weight_quantizer.bits = 32
    assert {tuple(ranges) for ranges in layer_ranges(model).values()} == {("activation",)}
    assert layer_ranges(tiny(32, 32)) == {}


def test_every_epoch_of_a_run_logs_the_ranges_of_what_it_quantizes(finished: FinishedRun):
    for record in RunDirectory(finished.folder).metrics():
        roles = {role for ranges in record["ranges"].values() for role in ranges}
        quantized = {"activation": record["activation_bits"], "weight": record["weight_bits"]}
        assert roles == {role for role, bits in quantized.items() if bits < 32}
    assert json.loads(json.dumps(record["ranges"])) == record["ranges"]
