from dataclasses import replace
from itertools import combinations
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from subfour.integer.bounds import bounds
from subfour.integer.build import build_program
from subfour.integer.execute import accumulate, compute, execute
from subfour.integer.grids import EXACT_BITS, FINE_MULTIPLIER, LARGEST_CUT, TIE_BITS
from subfour.integer.measure import measure
from subfour.integer.program import (
    IMAGE,
    Activate,
    Add,
    CodeSum,
    Dequantize,
    Gate,
    Layer,
    Multiply,
    Pool,
    Program,
    Quantize,
)
from subfour.integer.settle import settle
from subfour.integer.snap import _Snapper, coarse_layers, snap
from subfour.quantizers import QuantizerName
from tests.integer.programs import FEW, NETWORKS, PREPROCESSING, codes_of, normed, random_pixels, stock_programs
from tests.profit.quantized_networks import TINY, quantized

Kind = TypeVar("Kind")


def of_kind(program: Program, kind: type[Kind]) -> list[Kind]:
    return [operation for operation in program.operations if isinstance(operation, kind)]


@pytest.mark.parametrize("name", NETWORKS)
def test_no_code_depends_on_real_numbers_but_behind_a_curve(name: str):
    """Sums and products are of codes; steps are odd integers, but behind h-swish and sigmoid, which read one layer each."""
    program = stock_programs(name).snapped
    assert program.snapped
    assert not of_kind(program, Pool)
    assert not of_kind(program, Multiply)
    assert {operation.function for operation in of_kind(program, Activate)} <= {"hardswish", "sigmoid"}
    layers = {layer.name: layer for layer in of_kind(program, Layer)}
    curved = {activate.name: activate.inputs[0] for activate in of_kind(program, Activate)}
    assert all(not layers[source].integer for source in curved.values())
    for quantize in program.quantizers:
        if quantize.inputs[0] not in curved:
            step = float(quantize.step)
            assert step % 2 == 1, quantize.name
            assert float(quantize.offset) == 0
            assert step * 2**quantize.bits <= 2**TIE_BITS or isinstance(program.named(quantize.inputs[0]), CodeSum)
    for layer in layers.values():
        if layer.integer:
            assert torch.equal(layer.multiplier, layer.multiplier.round()), layer.name
            assert torch.equal(layer.addend, layer.addend.round()), layer.name
        else:
            assert layer.name == program.output or layer.name in curved.values(), layer.name
    assert all(float(dequantize.factor) % 1 == 0 for dequantize in of_kind(program, Dequantize))


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_integer_is_exact_in_float32(name: str):
    """Accumulators, their products with multipliers, sums on skip paths: below 2^24, on images calibration did not see."""
    program = stock_programs(name).settled
    values = execute(program, random_pixels(16)[8:])
    for operation in program.operations:
        if isinstance(operation, Layer):
            sums = accumulate(operation, values[operation.inputs[0]])
            assert sums.abs().max() < 2**EXACT_BITS
            if operation.integer:
                products = sums * operation.multiplier.view(1, -1, *[1] * (sums.ndim - 2))
                assert products.abs().max() < 2**EXACT_BITS, operation.name
        if isinstance(operation, Add | CodeSum | Gate | Dequantize) or (isinstance(operation, Layer) and operation.integer):
            value = values[operation.name]
            assert value.abs().max() < 2**EXACT_BITS, operation.name
            assert torch.equal(value, value.round())


@torch.no_grad()
def with_given_codes(program: Program, given: dict[str, Tensor], pixels: Tensor) -> dict[str, Tensor]:
    """Return what each operation gives when every quantizer before it gave the codes named."""
    values, results = {IMAGE: pixels}, {}
    for operation in program.operations:
        result = compute(operation, [values[name] for name in operation.inputs])
        results[operation.name] = result
        coded = isinstance(operation, Quantize) and operation.name in given
        values[operation.name] = given[operation.name].to(result.dtype) if coded else result
    return results


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [*((name, "duq") for name in FEW), (TINY, "pact-sawb"), ("torchvision/mobilenet_v2", "pact-sawb")]
    + [(name, quantizer) for name in FEW for quantizer in ("duq-offset", "lsq-plus")],
)
def test_a_snapped_block_computes_what_the_block_computed(name: str, quantizer: QuantizerName):
    """Given the same codes, few of its codes differ, and by one; behind pools, values by the two steps and that of a code."""
    programs, pixels = stock_programs(name, 4, quantizer), random_pixels(4)
    snapper = _Snapper(programs.built, programs.snapping)
    snapper.snapped()
    given = codes_of(programs.built, execute(programs.built, pixels))
    found = with_given_codes(programs.snapped, given, pixels)
    for quantize in programs.built.quantizers:
        expected, codes = given[quantize.name].double(), found[quantize.name].double()
        if isinstance(pool := programs.built.named(quantize.inputs[0]), Pool):
            # The odd step of a sum over few positions is a small number, far from what it replaces; the layer makes up for it.
            step = quantize.step * snapper.widened[quantize.name]
            error = (codes * step - expected * quantize.step).abs()
            ends = (LARGEST_CUT * quantize.qmax * quantize.step + step) * (expected == quantize.qmax)
            assert (error <= (step + quantize.step) / 2 + snapper.code_steps[pool.inputs[0]] + ends).all(), quantize.name
        elif not behind_a_pool(programs.built, quantize):
            assert (codes - expected).abs().max() <= 1, quantize.name
            assert (codes != expected).double().mean() < 0.08, quantize.name


def behind_a_pool(program: Program, quantize: Quantize) -> bool:
    """Return whether a value reaches a quantizer from a pool through layers of one position."""
    name = quantize.name
    while (inputs := program.named(name).inputs) != (IMAGE,):
        if len(inputs) == 2:
            return False
        name = inputs[0]
        if isinstance(program.named(name), Pool):
            return True
    return False


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [
        *((name, "duq") for name in ("torchvision/mobilenet_v2", "subfour/mobilenet_v1", "timm/mobilenetv4_conv_small", TINY)),
        *((TINY, quantizer) for quantizer in ("pact-sawb", "duq-offset", "lsq-plus")),
        ("torchvision/mobilenet_v2", "duq-offset"),
    ],
)
@torch.no_grad()
def test_a_snapped_network_answers_as_it_did(name: str, quantizer: QuantizerName):
    """At 5 bits: coarser codes tip over too easily in networks that never trained, finer ones leave multipliers few bits."""
    programs, pixels = stock_programs(name, 5, quantizer), random_pixels(8)
    before, after = (execute(program, pixels)[program.output].double() for program in (programs.built, programs.snapped))
    assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1] > 0.95


@pytest.mark.parametrize("name", NETWORKS)
def test_rounding_kills_no_channel_at_four_bits(name: str):
    """Every multiplier keeps a bit or more."""
    programs = stock_programs(name)
    for before, after in zip(of_kind(programs.built, Layer), of_kind(programs.snapped, Layer), strict=True):
        assert bool((after.multiplier[before.multiplier > 0] > 0).all()), before.name


def test_eight_bit_codes_of_pooled_maps_keep_the_range_of_their_quantizer():
    """Whatever the number of positions, and so the step of the sum, which is small at 8 bits."""
    for size in (8, 12, 16, 24, 32):
        model = quantized(normed(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1)), 8)
        pixels = random_pixels(16, size)
        program = build_program(model, PREPROCESSING, dtype=torch.float64)
        snapping = measure(program, [pixels])
        snapper = _Snapper(program, snapping)
        found = execute(snapper.snapped(), pixels)
        expected = execute(program, pixels)
        quantize = program.quantizers[-1]
        step = quantize.step * snapper.widened[quantize.name]
        error = (found[quantize.name] * step - expected[quantize.name] * quantize.step).abs()
        assert step >= quantize.step * (1 - LARGEST_CUT)
        code_step = snapper.code_steps[program.named(quantize.inputs[0]).inputs[0]]
        assert error.max() <= 1.5 * step + quantize.step / 2 + code_step + LARGEST_CUT * quantize.qmax * quantize.step, size


@pytest.mark.parametrize(("bits", "felt"), [(4, False), (6, False), (8, True)])
def test_rounded_multipliers_are_felt_at_eight_bits_only(bits: int, felt: bool):
    """And no channel is lost, at any width."""
    programs = stock_programs(TINY, bits)
    assert bool(coarse_layers(programs.snapped, programs.snapping)) == felt
    for before, after in zip(of_kind(programs.built, Layer), of_kind(programs.snapped, Layer), strict=True):
        assert (after.multiplier[before.multiplier > 0] > 0).all(), before.name


def test_a_channel_where_hardly_anything_happens_leaves_the_others_their_bits():
    """Batch norm scales it up as far as its deviation is small: with the largest accumulator its product would leave float32."""
    torch.manual_seed(0)
    model = normed(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 4, 1))
    norm = model[1]
    with torch.no_grad():
        model[0].weight[0] *= 0.01
        norm.running_var[0] = 1e-4 * norm.running_var[1]
    program = build_program(quantized(model, 4), PREPROCESSING, dtype=torch.float64)
    snapping = measure(program, [random_pixels(16)])
    snapped = snap(program, snapping)
    first = of_kind(snapped, Layer)[0]
    assert first.multiplier[0] > 50 * first.multiplier[1:].max()
    assert first.multiplier[1:].min() > FINE_MULTIPLIER
    assert bounds(settle(snapped, snapping), snapping)[first.name].proven


def test_sums_that_do_not_hang_together_have_units_of_their_own():
    """Else the chain of the widest values would make multipliers of all others coarse."""
    programs = stock_programs("torchvision/mobilenet_v2")
    snapper = _Snapper(programs.built, programs.snapping)
    chains = snapper.structure.chains
    assert len(chains) == 5  # of 10 sums
    assert all(not one & other for one, other in combinations(chains, 2))
    for add in of_kind(programs.built, Add):
        assert len({snapper.skip_units[name] for name in (add.name, *add.inputs)}) == 1
    wide = stock_programs(TINY, 8)
    assert len({*_Snapper(wide.built, wide.snapping).skip_units.values()}) > 1


def test_relu6_and_hard_sigmoid_become_part_of_the_clip():
    """ReLU6 by a lower qmax where the range reaches beyond 6; hard-sigmoid by slope and shift, exactly."""
    model = quantized(normed(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 4, 1)), 4)
    quantizer = model[3].activation_quantizer
    quantizer.set_ranges(torch.tensor(9.0))
    program = build_program(model, PREPROCESSING, dtype=torch.float64)
    snapping = measure(program, [random_pixels()])
    (quantize,) = snap(program, snapping).quantizers
    assert quantize.qmax == 10  # 6 / (9 / 15)
    quantizer.set_ranges(torch.tensor(5.0))
    (quantize,) = snap(build_program(model, PREPROCESSING, dtype=torch.float64), snapping).quantizers
    assert quantize.qmax == 15


def test_the_constants_train_through_their_rounding():
    """Gradients reach what the unsnapped program's constants come from, about as large."""
    programs = stock_programs("subfour/tiny_mobilenet_v3")
    parameters = dict(programs.model.named_parameters())
    gradients = []
    for rounded in (False, True):
        program = build_program(programs.model, PREPROCESSING)
        program = snap(program, programs.snapping) if rounded else program
        logits = execute(program, random_pixels())[program.output]
        gradients.append(torch.autograd.grad(logits.square().sum(), [*parameters.values()], allow_unused=True))
    for name, smooth, found in zip(parameters, *gradients, strict=True):
        assert found is not None, name
        assert found.isfinite().all(), name
        assert bool(found.any()) == bool(smooth.any()), name


@pytest.mark.parametrize("sign", [-1, 1])
@torch.no_grad()
def test_a_range_far_from_zero_is_no_bad_input_either(sign: int):
    """Its offset in integers would leave too little of the margin to a tie."""
    programs = stock_programs("torchvision/mobilenet_v2", 4, "duq-offset")
    shifted = next(operation for operation in programs.built.quantizers if operation.offset)
    far = replace(shifted, offset=sign * 1000 * shifted.step)
    ruined = [far if operation is shifted else operation for operation in programs.built.operations]
    with pytest.raises(FloatingPointError, match=f"^{shifted.name}: its range begins too far from 0, or adds up too many"):
        snap(Program(operations=tuple(ruined)), programs.snapping)


@torch.no_grad()
def test_a_sum_of_more_positions_than_float32_can_divide_is_refused():
    """As of images of thousands of pixels: its odd step would leave too little of the margin to a tie."""
    programs = stock_programs("torchvision/mobilenet_v3_small")
    positions = {name: count * 4096 for name, count in programs.snapping.positions.items()}
    with pytest.raises(FloatingPointError, match=r"adds up too many positions, .* use smaller images"):
        snap(programs.built, replace(programs.snapping, positions=positions))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NETWORKS)
def test_no_constant_leaves_the_graph_unasked(name: str):
    """Torch warns where a tensor that needs a gradient becomes a plain number."""
    programs = stock_programs(name)
    snap(build_program(programs.model, PREPROCESSING), programs.snapping)


WRONG_OFFSETS = (float("nan"), float("inf"), -float("inf"), 1e38)
WRONG_STEPS = (float("nan"), float("inf"), 1e38, 0.0, 1e-40, -0.1)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *((Quantize, "step", value) for value in WRONG_STEPS),
        *((Quantize, "offset", value) for value in WRONG_OFFSETS),
        *((Layer, field, value) for field in ("multiplier", "addend") for value in (float("nan"), float("inf"), -float("inf"))),
    ],
)
@torch.no_grad()
def test_a_constant_that_training_has_ruined_is_no_bad_input(kind: type[Layer | Quantize], field: str, value: float):
    """On skip paths and elsewhere: named, and of the sort that a collapse is, whatever the arithmetic would make of it."""
    programs = stock_programs(TINY)
    built = build_program(programs.model, PREPROCESSING)
    for operation in of_kind(built, kind):
        constant = torch.as_tensor(getattr(operation, field)).clone()
        constant.view(-1)[0] = value
        ruined = [replace(each, **{field: constant}) if each is operation else each for each in built.operations]
        with pytest.raises(FloatingPointError, match=f"^{operation.name}: its .+ cannot be snapped$"):
            snap(Program(operations=tuple(ruined)), programs.snapping)
