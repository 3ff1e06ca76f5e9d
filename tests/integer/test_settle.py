"""THE property of snapping: no executor can disagree about a code, whatever its order of operations and last bits."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.integer.execute import accumulate, compute, execute
from subfour.integer.measure import Snapping
from subfour.integer.program import IMAGE, Activate, Layer, Lookup, Operation, Program, Quantize, readers
from subfour.integer.settle import DEAD_MULTIPLIER, settle, unclear_channels
from tests.integer.programs import (
    NETWORKS,
    WIDTHS,
    codes_of,
    computed,
    differing,
    normed,
    programs_of,
    random_pixels,
    stock_programs,
)
from tests.profit.quantized_networks import quantized

NOISE = 2.0**-22
"""Relative error of a nonlinearity: 4 roundings of float32."""

SIGMOID_NOISE = 1.5e-7
"""Absolute error of a sigmoid: onnxruntime's, which small values do not make smaller."""


def in_float64(program: Program) -> Program:
    operations: list[Operation] = []
    for operation in program.operations:
        if isinstance(operation, Layer):
            constants = {name: getattr(operation, name).double() for name in ("codes", "multiplier", "addend")}
            operation = replace(operation, **constants)  # noqa: PLW2901
        elif isinstance(operation, Quantize):
            operation = replace(operation, step=operation.step.double())  # noqa: PLW2901
        operations.append(operation)
    return Program(operations=tuple(operations), snapped=True)


def noisy(generator: torch.Generator) -> object:
    """Return an executor whose nonlinearities err."""

    def through(operation: Operation, inputs: Sequence[Tensor]) -> Tensor:
        value = compute(operation, [*inputs])
        if isinstance(operation, Activate):
            noise = 2 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1
            scale = SIGMOID_NOISE if operation.function == "sigmoid" else NOISE * value.double()
            return (value.double() + noise * scale).float()
        return value

    return through


def shuffled(generator: torch.Generator) -> object:
    """Return an executor that scales weights and not accumulators, adds up in another order, and multiplies by 1 / step."""

    def through(operation: Operation, inputs: Sequence[Tensor]) -> Tensor:
        if isinstance(operation, Layer) and operation.integer and operation.groups == 1:
            order = torch.randperm(operation.codes.shape[1], generator=generator)
            weight = operation.codes * operation.multiplier.view(-1, *[1] * (operation.codes.ndim - 1))
            codes, weight = inputs[0].float()[:, order], weight[:, order]
            if operation.linear:
                return F.linear(codes, weight, operation.addend)
            return F.conv2d(codes, weight, operation.addend, operation.stride, operation.padding, operation.dilation)
        if isinstance(operation, Quantize):
            codes = (inputs[0].float() - operation.offset) * (1 / operation.step.float())
            return codes.round().clamp(operation.qmin, operation.qmax)
        return compute(operation, [*inputs])

    return through


@pytest.mark.parametrize(("name", "bits"), WIDTHS)
@torch.no_grad()
def test_every_executor_gets_the_same_codes(name: str, bits: int):
    """In float32 and in float64, with errors in the nonlinearities, with products and sums in another order."""
    programs, pixels = stock_programs(name, bits), random_pixels(8)
    program = programs.settled
    assert not unclear_channels(program, programs.snapping)
    values = execute(program, pixels)
    codes = codes_of(program, values)
    generator = torch.Generator().manual_seed(0)
    assert not differing(codes, codes_of(program, execute(in_float64(program), pixels)))
    for executor in (noisy(generator), noisy(generator), shuffled(generator)):
        assert not differing(codes, codes_of(program, computed(program, pixels, through=executor)))  # type: ignore[arg-type]
    last = program.operations[-1]
    assert isinstance(last, Layer)
    again = computed(program, pixels, through=noisy(generator))  # type: ignore[arg-type]
    assert torch.equal(accumulate(last, values[last.inputs[0]]), accumulate(last, again[last.inputs[0]]))


@torch.no_grad()
def test_without_settling_executors_disagree():
    """The property is not for free: in the program that was not snapped, the last bits of float32 decide about codes."""
    programs, pixels = stock_programs("subfour/tiny_mobilenet_v3", 8), random_pixels(32)
    one, other = (computed(programs.built, pixels, through=executor) for executor in (compute, noisy_layers()))
    assert differing(codes_of(programs.built, one), codes_of(programs.built, other))


def noisy_layers() -> object:
    """Return an executor whose layers err by a rounding of float32."""
    generator = torch.Generator().manual_seed(0)

    def through(operation: Operation, inputs: Sequence[Tensor]) -> Tensor:
        value = compute(operation, [*inputs])
        if isinstance(operation, Layer):
            value = value * (1 + NOISE * torch.rand(value.shape, generator=generator, dtype=value.dtype))
        return value

    return through


@pytest.mark.parametrize("name", NETWORKS)
def test_settling_moves_addends_by_less_than_two_accumulators(name: str):
    """And changes nothing else of a layer that is alive, but the last bits of a few multipliers."""
    programs = stock_programs(name)
    for before, after in zip(programs.snapped.operations, programs.settled.operations, strict=True):
        if isinstance(before, Layer):
            assert isinstance(after, Layer)
            alive = before.multiplier > 0
            moved = (after.addend.double() - before.addend).abs()[alive]
            assert (moved <= 2 * before.multiplier[alive]).all(), before.name
            if before.integer:
                assert not moved.any()
                assert torch.equal(after.multiplier[alive].double(), before.multiplier[alive])
            torch.testing.assert_close(after.multiplier[alive].double(), before.multiplier[alive], rtol=2**-2, atol=0)
            assert torch.equal(after.codes[alive].double(), before.codes[alive].double())


def network_with_gains(gain: float) -> nn.Module:
    """Return a network in which one channel of every batch norm has a gain of its own."""
    model = normed(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardswish(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    for index, norm in enumerate(module for module in model if isinstance(module, nn.BatchNorm2d)):
        with torch.no_grad():
            norm.weight[0], norm.bias[0] = gain, 0.3 + index
    return quantized(model, 4)


@pytest.mark.filterwarnings("error:invalid value")  # constants that leave int64
@pytest.mark.parametrize("gain", [0.0, 1e-20, -3e-16, 1e-11, 1e-9, 1e-6])
def test_a_channel_that_is_dead_or_nearly_so_is_constant(gain: float):
    """It has accumulators of 0 and a scale that is not, as runtimes need it; its codes are those it had."""
    torch.manual_seed(0)
    programs, pixels = programs_of(network_with_gains(gain)), random_pixels(4)
    values, given = execute(programs.settled, pixels), execute(programs.built, pixels)
    for layer in programs.settled.operations:
        if isinstance(layer, Layer):
            assert (layer.multiplier > 0).all()
            assert layer.multiplier.isfinite().all()
            assert layer.addend.isfinite().all()
    stem, first = programs.settled.named("0"), programs.settled.quantizers[0]
    assert isinstance(stem, Layer)
    if abs(gain) < 1e-12:
        assert stem.multiplier[0] == DEAD_MULTIPLIER
        assert not stem.codes[0].any()
    assert torch.equal(values[first.name][:, 0].double(), given[first.name][:, 0].double())
    assert values[first.name][:, 0].unique().numel() == 1


@torch.no_grad()
def test_at_eight_bits_behind_h_swish_no_addend_moves_by_more_than_half_a_step():
    """Not all channels can be cleared there; a run goes on with those near where they were, and they are counted."""
    programs = stock_programs("subfour/tiny_mobilenet_v3", 8)
    unclear = unclear_channels(programs.settled, programs.snapping)
    assert unclear
    for before, after in zip(programs.snapped.operations, programs.settled.operations, strict=True):
        curved = readers(programs.snapped, before.name) if isinstance(before, Layer) and not before.integer else []
        if curved:
            assert isinstance(before, Layer)
            assert isinstance(after, Layer)
            moved = (after.addend.double() - before.addend).abs()
            assert (moved <= min(float(quantize.step) for quantize, _ in curved) / 2).all(), before.name


def test_what_cannot_be_cleared_is_counted_and_hardly_moved():
    """Boundaries closer than float32 can tell apart, wherever the addend goes."""
    layer = Layer(
        name="layer",
        inputs=("codes",),
        codes=torch.ones(1, 3, 1, 1),
        multiplier=torch.tensor([2.0**-20], dtype=torch.float64),
        addend=torch.tensor([4.0], dtype=torch.float64),
        weight_bits=4,
    )
    operations = (
        Lookup(name="codes", inputs=(IMAGE,), table=torch.zeros(3, 256, dtype=torch.int64), qmin=0, qmax=20),
        layer,
        Activate(name="act", inputs=("layer",), function="hardswish"),
        Quantize(
            name="q",
            inputs=("act",),
            step=torch.tensor(2.0**-18, dtype=torch.float64),
            offset=4 - 2.0**-10,
            qmin=0,
            qmax=2**9,
            bits=8,
        ),
    )
    snapping = Snapping(accumulators={"layer": 2**6}, largest={}, positions={})
    settled = settle(Program(operations=operations, snapped=True), snapping)
    assert unclear_channels(settled, snapping) == {"layer": 1}
    moved = settled.named("layer")
    assert isinstance(moved, Layer)
    assert abs(float(moved.addend) - 4) <= 2.0**-19
