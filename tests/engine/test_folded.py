"""Folded equals plain, in float64, on whole networks whose batch norms have random scales and shifts."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from saved_memory import saved_bytes
from torch import Tensor, nn

from subfour.convert.calibrate import set_bits
from subfour.data.preprocess import normalize
from subfour.engine.folded import CodesLayer, CodesOfBatchNorm, folded_network
from subfour.integer.build import build_program
from subfour.integer.execute import execute
from subfour.integer.program import Quantize
from subfour.layers import quant_layers
from subfour.ops import FLOAT_BITS
from subfour.quantizers import DuQOffset
from tests.convert.stock_networks import random_images, stock_network
from tests.integer.programs import PREPROCESSING, random_pixels
from tests.profit.quantized_networks import TINY, quantized

NETWORKS = (TINY, "torchvision/mobilenet_v2", "torchvision/mobilenet_v3_small", "timm/mobilenetv3_small_050")


def without_dropout(model: nn.Module) -> nn.Module:
    """Return the model in float64; the two paths would have to draw the same numbers."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_rate"):
            module.drop_rate = 0.0
    return model.double()


def stock(name: str, weight_bits: int = 4, activation_bits: int = 4, **choices: str) -> nn.Module:
    return without_dropout(quantized(stock_network(name), weight_bits, activation_bits, **choices))


@dataclass(frozen=True)
class Step:
    """What one forward and backward pass leaves."""

    logits: Tensor
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]


def step(network: nn.Module, model: nn.Module, images: Tensor) -> Step:
    """Compute a loss with random weights of the logits through `network`, whose parameters are the model's."""
    model.zero_grad()
    logits = network(images)
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return Step(logits.detach(), gradients, dict(model.named_buffers()))


def assert_same(folded: Step, plain: Step) -> None:
    """Check outputs to 1e-12, gradients to 1e-6 of each parameter's largest, or to rounding where the gradient is 0."""
    assert (folded.logits - plain.logits).abs().max() <= 1e-12 * max(1, plain.logits.abs().max())
    largest = max(float(gradient.abs().max()) for gradient in plain.gradients.values() if gradient is not None)
    for name, expected in plain.gradients.items():
        found = folded.gradients[name]
        assert (found is None) == (expected is None), name
        if found is not None and expected is not None:
            assert (found - expected).abs().max() <= 1e-6 * expected.abs().max() + 1e-14 * largest, name
    for name, value in plain.buffers.items():
        torch.testing.assert_close(folded.buffers[name], value, rtol=1e-12, atol=1e-12)


def train(model: nn.Module) -> None:
    model.train()


def evaluate(model: nn.Module) -> None:
    model.eval()


def freeze_weights(model: nn.Module) -> None:
    """Freeze as PROFIT does: ranges and batch norm go on."""
    model.train()
    for layer in quant_layers(model).values():
        layer.weight.requires_grad_(False)


def freeze_statistics(model: nn.Module) -> None:
    """Set the batch norms to evaluation mode while the rest trains; the offset's bias then has a gradient."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def freeze_batchnorm(model: nn.Module) -> None:
    """Freeze scale and shift, as `--profit.covers weights+ranges+batchnorm` does; the range behind them goes on."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


@pytest.mark.parametrize("prepare", [train, evaluate, freeze_weights, freeze_statistics, freeze_batchnorm])
@pytest.mark.parametrize("name", NETWORKS)
def test_folded_equals_plain(name: str, prepare: Callable[[nn.Module], None]):
    """Outputs, gradients of all that trains, running statistics."""
    plain = stock(name)
    model = copy.deepcopy(plain)
    network = folded_network(model)
    images = random_images(4, 64).double()
    prepare(plain)
    prepare(network)  # shares its parameters with the model
    assert_same(step(network, model, images), step(plain, plain, images))


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(2, 2), (8, 8), (FLOAT_BITS, 4), (4, 8)])
def test_folded_equals_plain_at_every_pair_of_widths(weight_bits: int, activation_bits: int):
    plain = stock(TINY, weight_bits, activation_bits)
    model = copy.deepcopy(plain)
    images = random_images(4, 32).double()
    assert_same(step(folded_network(model).train(), model, images), step(plain.train(), plain, images))


@pytest.mark.parametrize("choices", [{"weight_granularity": "channel"}, {"padding": "zero"}, {"batchnorm": "fused"}])
def test_folded_equals_plain_whatever_was_chosen(choices: dict[str, str]):
    """A border that is no code, or a fused batch norm, leaves those layers plain."""
    plain = stock(TINY, **choices)
    model = copy.deepcopy(plain)
    images = random_images(4, 32).double()
    network = folded_network(model)
    plain_layers = [layer for layer in quant_layers(network).values() if not isinstance(layer, CodesLayer)]
    assert any(layer.kind == "depthwise" for layer in plain_layers) == (choices != {"weight_granularity": "channel"})
    assert_same(step(network.train(), model, images), step(plain.train(), plain, images))


def test_layers_with_a_learned_offset_stay_plain():
    """The others compute on codes: weights of all codes, and inputs behind ReLU and h-swish."""
    plain = stock(TINY, 2, 2, quantizer="duq-offset")
    model = copy.deepcopy(plain)
    images = random_images(4, 32).double()
    network = folded_network(model)
    inputs = {name: layer.activation_quantizer for name, layer in quant_layers(model).items()}
    shifted = {name for name, quantizer in inputs.items() if isinstance(quantizer, DuQOffset) and quantizer.shift is not None}
    assert shifted
    image = next(iter(inputs))
    assert shifted | {image} == {name for name, layer in quant_layers(network).items() if not isinstance(layer, CodesLayer)}
    assert_same(step(network.train(), model, images), step(plain.train(), plain, images))


def test_a_range_beyond_six_saturates_where_relu6_does():
    """There the range has a gradient from the clipped values, which are 6 in steps."""
    plain = stock("torchvision/mobilenet_v2")
    for layer in quant_layers(plain).values():
        if layer.activation_quantizer.domain == "unsigned":
            layer.activation_quantizer.set_ranges(torch.tensor(9.0), torch.tensor(7.0))
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0.0, 6.0)
    model = copy.deepcopy(plain)
    images = random_images(4, 64).double()
    assert_same(step(folded_network(model).train(), model, images), step(plain.train(), plain, images))


def test_three_steps_of_the_twin_train_the_model():
    """Weights, ranges, batch norm and its statistics, as three plain steps do."""
    plain = stock(TINY)
    model = copy.deepcopy(plain)
    networks = (folded_network(model).train(), model), (plain.train(), plain)
    for network, trained in networks:
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9, nesterov=True)
        for seed in range(3):
            optimizer.zero_grad()
            network(random_images(4, 32).double() + seed).square().sum().backward()
            optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-7, atol=1e-9)


def test_the_twin_has_the_model_s_parameters_and_changes_nothing():
    model = stock(TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    network = folded_network(model)
    assert {id(parameter) for parameter in network.parameters()} == {id(parameter) for parameter in model.parameters()}
    assert {id(buffer) for buffer in network.buffers()} == {id(buffer) for buffer in model.buffers()}
    assert quant_layers(network).keys() == quant_layers(model).keys()
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_the_codes_are_those_that_are_exported(name: str):
    """Every code of every layer, in evaluation mode."""
    model = stock(name).eval()
    pixels = random_pixels()
    program = build_program(model, PREPROCESSING, dtype=torch.float64)
    expected = execute(program, pixels)
    network, codes = folded_network(model).eval(), {}

    def keep(layer: CodesLayer, inputs: tuple[Tensor], *, name: str) -> None:
        codes[name] = layer.quantized_input(inputs[0])

    for layer_name, layer in quant_layers(network).items():
        if isinstance(layer, CodesLayer):
            layer.register_forward_pre_hook(lambda *given, name=layer_name: keep(*given, name=name))
    network(normalize(pixels, PREPROCESSING).double())
    exported = {operation.name.removesuffix(".input"): expected[operation.name] for operation in program.quantizers}
    assert codes.keys() == exported.keys()
    for layer_name, found in codes.items():
        assert torch.equal(found.flatten(), exported[layer_name].to(found.dtype).flatten()), layer_name
    assert any(isinstance(operation, Quantize) for operation in program.operations)


def test_the_twin_keeps_less_for_backward_than_the_plain_path_and_little_more_than_the_float_network():
    """The weights, as codes times scales, are all that v2 keeps beside what it keeps in float."""
    model = quantized(stock_network("torchvision/mobilenet_v2"), 4).train()
    images = random_images(4, 64)
    folded, plain = (saved_bytes(partial(network, images), model, images) for network in (folded_network(model).train(), model))
    set_bits(model, FLOAT_BITS, FLOAT_BITS)
    weights = sum(layer.weight.numel() * layer.weight.element_size() for layer in quant_layers(model).values())
    float_bytes = saved_bytes(partial(model, images), model, images)
    assert folded < 0.7 * plain
    assert folded - weights < 1.05 * float_bytes


def test_batch_norms_with_a_skip_or_a_gate_behind_them_stay():
    """In the tiny network: six of 16 batch norms are in a chain, the others are as they were."""
    network = folded_network(stock(TINY))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    chains = [module for module in network.modules() if isinstance(module, CodesOfBatchNorm)]
    assert (len(norms), len(chains)) == (16, 6)
