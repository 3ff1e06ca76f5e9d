from dataclasses import replace

import pytest
import torch
from torch import nn

from subfour.convert.calibrate import set_bits
from subfour.convert.graph import trace
from subfour.convert.rewrite import convert
from subfour.data.preprocess import Preprocessing, normalize
from subfour.integer.execute import execute
from subfour.integer.network import SnappedNetwork, measure_snapping, pixels_of, snapped_program, trial_program
from subfour.integer.program import Activate, Quantize
from subfour.integer.structure import check_structure
from subfour.layers import quant_layers
from subfour.quantizers import QuantizerName
from tests.convert.stock_networks import NORMALIZATION, stock_network
from tests.integer.programs import PREPROCESSING, SIZE, random_pixels, stock_programs
from tests.profit.quantized_networks import TINY, tiny


def snapped_network(quantizer: QuantizerName = "duq") -> SnappedNetwork:
    """Return a snapped network around a model of its own."""
    return SnappedNetwork(tiny(4, quantizer=quantizer), PREPROCESSING, stock_programs(TINY, 4, quantizer).snapping)


def images() -> torch.Tensor:
    return normalize(random_pixels(4), PREPROCESSING)


def test_evaluation_executes_the_settled_program():
    """Bit for bit."""
    network = snapped_network().eval()
    program = stock_programs(TINY).settled
    with torch.no_grad():
        assert torch.equal(network(images()), execute(program, random_pixels(4))[program.output])


def test_training_moves_every_parameter_and_leaves_batch_norm_alone():
    """The forward pass in training mode is differentiable, and near the one in evaluation mode."""
    network = snapped_network().train()
    statistics = {name: value.clone() for name, value in network.model.named_buffers()}
    logits = network(images())
    logits.square().mean().backward()
    without = [name for name, parameter in network.model.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    kinds = ("input_range_raw", "output_range_raw", "weight", "bias")
    for kind in kinds:
        found = [parameter.grad for name, parameter in network.model.named_parameters() if name.endswith(kind)]
        assert any(gradient.any() for gradient in found), kind
    assert all(torch.equal(value, statistics[name]) for name, value in network.model.named_buffers())
    with torch.no_grad():
        final = network.eval()(images())
    assert torch.corrcoef(torch.stack([logits.detach().flatten(), final.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize(("quantizer", "offset"), [("lsq-plus", "beta"), ("duq-offset", "shift")])
def test_offsets_are_trained_as_they_are_snapped(quantizer: QuantizerName, offset: str):
    """Each of them, through the rounding to an integer and through the addends behind."""
    network = snapped_network(quantizer).train()
    network(images()).square().mean().backward()
    offsets = [parameter for name, parameter in network.model.named_parameters() if name.endswith(offset)]
    assert offsets
    assert all(parameter.grad is not None and parameter.grad.isfinite() and parameter.grad != 0 for parameter in offsets)
    program = network.eval().final_program()
    assert all(float(quantize.offset) % 1 == 0 for quantize in program.quantizers if float(quantize.step) % 1 == 0)


def test_training_steps_are_those_of_a_network_traced_anew_each_time(monkeypatch: pytest.MonkeyPatch):
    """Bit for bit, and it is traced once."""
    states, traced = [], []
    monkeypatch.setattr("subfour.integer.network.trace", lambda model: traced.append(model) or trace(model))
    for anew in (False, True):
        network = snapped_network().train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        traced.clear()
        for _ in range(3):
            if anew:
                network._graph = trace(network.model)
            optimizer.zero_grad()
            network(images()).square().mean().backward()
            optimizer.step()
        assert not traced
        states.append(network.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    moved = snapped_network().state_dict()
    assert any(not torch.equal(value, moved[name]) for name, value in states[0].items())


def test_what_was_settled_is_kept_until_the_mode_is_set_again():
    """Parameters change between evaluations, never within one."""
    network = snapped_network().eval()
    program = network.final_program()
    assert network.final_program() is program
    before = network(images())
    with torch.no_grad():
        for norm in (module for module in network.model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.bias += 0.2
    assert torch.equal(network(images()), before)
    assert not torch.equal(network.eval()(images()), before)
    assert network.final_program() is not program


def test_the_network_s_parameters_are_those_of_the_model_it_wraps():
    model = tiny(4)
    network = SnappedNetwork(model, PREPROCESSING, stock_programs(TINY).snapping)
    assert {id(parameter) for parameter in network.parameters()} == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (NORMALIZATION["mean"], NORMALIZATION["std"]),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ((0.3052, 0.3052, 0.3052), (0.3761, 0.3761, 0.3761)),
        ((1.0, 0.0, 0.999), (0.001, 1e-4, 100.0)),
    ],
)
def test_normalised_images_give_their_pixels_back(mean: tuple[float, ...], std: tuple[float, ...]):
    """All 256 values of each channel."""
    preprocessing = Preprocessing(image_size=16, resize_size=16, interpolation="bilinear", mean=mean, std=std)
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    assert torch.equal(pixels_of(normalize(pixels, preprocessing), preprocessing), pixels)


@torch.no_grad()
def test_the_program_of_a_network_is_a_function_of_its_state():
    programs = stock_programs(TINY)
    again = snapped_program(programs.model, PREPROCESSING, programs.snapping)
    pixels = random_pixels()
    assert torch.equal(execute(again, pixels)[again.output], execute(programs.settled, pixels)[again.output])


@pytest.mark.parametrize(("bits", "warned"), [(4, False), (8, True)])
def test_it_is_said_before_training_where_multipliers_would_be_coarse(bits: int, warned: bool, caplog: pytest.LogCaptureFixture):
    """With what to do about it."""
    snapping = measure_snapping(tiny(bits), PREPROCESSING, [random_pixels(8)])
    assert snapping == stock_programs(TINY, bits).snapping
    said = [message for message in caplog.messages if message.startswith("snap: ") and message.endswith("with --no-snap")]
    assert bool(said) == warned


def test_whether_a_network_can_be_snapped_is_known_before_it_is_calibrated():
    """Its widths stay as they were; a border of zeros under h-swish is refused, by layer."""
    model = stock_network(TINY)
    convert(model, **NORMALIZATION)
    trial_program(model, PREPROCESSING, weight_bits=4, activation_bits=3)
    assert {layer.weight_quantizer.bits for layer in quant_layers(model).values()} == {32}
    set_bits(model, 4, 3)
    trial_program(model, PREPROCESSING, weight_bits=2, activation_bits=2)
    assert {layer.weight_quantizer.bits for layer in quant_layers(model).values()} == {4}
    assert not any(layer.weight_quantizer.initialized for layer in quant_layers(model).values())
    zeros = stock_network(TINY)
    convert(zeros, padding="zero", **NORMALIZATION)
    with pytest.raises(ValueError, match=r"^features\.\S+: padding: it pads with 0\.0"):
        trial_program(zeros, PREPROCESSING, weight_bits=4, activation_bits=4)
    assert PREPROCESSING.image_size == SIZE


def test_a_clip_takes_relu_s_place_only_where_codes_begin_at_0():
    """An offset behind ReLU, which no quantizer of ours has, would let through what ReLU holds back."""
    program = stock_programs("torchvision/mobilenet_v2").built
    check_structure(program)
    relu = {operation.name for operation in program.operations if isinstance(operation, Activate)}
    place, quantize = next(
        (place, operation)
        for place, operation in enumerate(program.operations)
        if isinstance(operation, Quantize) and operation.inputs[0] in relu
    )
    for change in ({"offset": -0.25}, {"offset": torch.tensor(0.5)}, {"qmin": -1}):
        operations = [*program.operations]
        operations[place] = replace(quantize, **change)
        with pytest.raises(ValueError, match=f"{quantize.name}: its codes do not begin at 0, where relu6 does"):
            check_structure(replace(program, operations=tuple(operations)))


def test_a_network_without_a_linear_head_is_refused_before_it_trains():
    """Its logits would be maps, in no file what they are said to be."""
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 8, 1), nn.Hardswish(), nn.Conv2d(8, 2, 1), nn.Flatten())
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), head)
    convert(model, **NORMALIZATION)
    with pytest.raises(ValueError, match=r"^2\.3: the network ends with it, and only one that ends with a linear layer"):
        trial_program(model, PREPROCESSING, weight_bits=4, activation_bits=4)
