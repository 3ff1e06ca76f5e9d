"""A bound must hold for the worst image there can be, and be reached by it."""

from dataclasses import replace

import pytest
import torch

from subfour.integer.bounds import EXACT, accumulator_reach, bounds
from subfour.integer.execute import accumulate, execute
from subfour.integer.measure import Snapping
from subfour.integer.program import IMAGE, Add, CodeSum, Layer, Lookup, Program, Quantize
from tests.integer.programs import NETWORKS, random_pixels, stock_programs


def one_layer(codes: torch.Tensor, *, multiplier: float = 1.0, addend: float = 0.0) -> Program:
    """Return a layer on pixels of -5 .. 7."""
    channels = torch.ones(len(codes))
    layer = Layer(
        name="layer",
        inputs=("codes",),
        codes=codes,
        multiplier=multiplier * channels,
        addend=addend * channels,
        weight_bits=8,
        integer=True,
    )
    table = torch.arange(256).expand(3, 256) % 13 - 5
    lookup = Lookup(name="codes", inputs=(IMAGE,), table=table, qmin=-5, qmax=7)
    return Program(operations=(lookup, layer, replace(layer, name="logits")), snapped=True)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_no_accumulator_and_no_sum_leaves_its_bound(name: str):
    """On images that calibration did not see."""
    programs = stock_programs(name)
    values = execute(programs.settled, random_pixels(16)[8:])
    found = bounds(programs.settled, programs.snapping)
    for operation in programs.settled.operations:
        if isinstance(operation, Layer):
            assert accumulate(operation, values[operation.inputs[0]]).abs().max() <= found[operation.name].worst
        elif isinstance(operation, Add | CodeSum):
            assert values[operation.name].abs().max() <= found[operation.name].worst


def test_the_bound_of_an_accumulator_is_reached():
    """By the image that has the largest code under positive weights and the smallest under negative ones."""
    codes = torch.tensor([[3.0, -2.0, 0.0], [1.0, 1.0, 1.0]]).view(2, 3, 1, 1)
    reach = accumulator_reach(one_layer(codes))["layer"]
    assert reach.highest.tolist() == [3 * 7 + 2 * 5, 21]
    assert reach.lowest.tolist() == [-3 * 5 - 2 * 7, -15]


@pytest.mark.parametrize(("multiplier", "proven"), [(1.0, True), (EXACT // 21, True), (EXACT // 21 + 1, False)])
def test_a_proof_ends_where_float32_does(multiplier: float, proven: bool):
    """At 2^24; up to `exact` it holds."""
    program = one_layer(torch.ones(1, 3, 1, 1), multiplier=multiplier)
    bound = bounds(program, Snapping(accumulators={}, largest={}, positions={}))["layer"]
    assert bound.worst == 21
    assert bound.proven == proven
    assert bound.exact == (21 if proven else 20)


@pytest.mark.parametrize(("positions", "proven"), [(49, True), (256 * 256, True), (257 * 257, False)])
def test_a_sum_over_positions_is_proven_up_to_its_number_of_codes(positions: int, proven: bool):
    """8-bit codes of an input of 8,000 pixels leave what float32 holds."""
    values = one_layer(torch.ones(1, 3, 1, 1)).operations
    code = Quantize(name="code", inputs=("layer",), step=torch.tensor(1.0), offset=0.0, qmin=0, qmax=255, bits=8)
    operations = (*values[:2], code, CodeSum(name="sum", inputs=("code",)), values[2])
    snapping = Snapping(accumulators={}, largest={}, positions={"sum": positions})
    bound = bounds(Program(operations=operations, snapped=True), snapping)["sum"]
    assert (bound.worst, bound.exact, bound.proven) == (255 * positions, EXACT, proven)


def test_accumulators_beyond_int32_are_refused():
    codes = torch.full((1, 3, 4000, 1000), 127.0)
    with pytest.raises(ValueError, match=r"layer: its accumulators may reach \d+, beyond int32; use fewer bits"):
        accumulator_reach(one_layer(codes))


def test_a_layer_without_a_living_weight_is_proven():
    """As the gates of a trained network can be; a share of its bound can be asked for."""
    bound = bounds(one_layer(torch.zeros(1, 3, 1, 1)), Snapping(accumulators={}, largest={}, positions={}))["layer"]
    assert (bound.worst, bound.exact, bound.proven) == (0, 1, True)
