"""The kernels against the functions they stand for, in float32: equal but for rounding."""

import shutil
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from subfour.engine.chains import Activation
from subfour.engine.codes import Behind, Statistics, codes_of
from subfour.engine.compiled import compiled_operations
from subfour.engine.folded import TORCH, CodesConv2d, CodesLinear, Operations, folded_network
from subfour.engine.gates import gated_codes
from subfour.ops import IntegerGrid, QuantParams, quantize_ste
from subfour.quantizers import DuQ, DuQWeight
from subfour.quantizers.base import Domain
from tests.convert.stock_networks import random_images, stock_network
from tests.profit.quantized_networks import TINY, quantized


@pytest.fixture(scope="module")
def kernels() -> Operations:
    """Compile."""
    if shutil.which("c++") is None or shutil.which("ninja") is None:
        pytest.skip("needs a C++ compiler and ninja")
    operations = compiled_operations()
    assert operations != TORCH
    return operations


def assert_close(found: Tensor, expected: Tensor, *, zero: float = 0.0) -> None:
    """Within 1e-4 of the largest entry; below `zero` there is nothing but rounding."""
    assert (found - expected).abs().max() <= 1e-4 * max(float(expected.abs().max()), zero)


def test_without_a_compiler_the_folded_engine_computes_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(*given: object, **options: object) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr("torch.utils.cpp_extension.load", fails)
    assert compiled_operations.__wrapped__() is TORCH
    assert "engine: compiled is not possible here, folded is used: no compiler" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("of_batch", [True, False])
@pytest.mark.parametrize(
    "chain",
    [
        ("identity", 0.3, 0.0, IntegerGrid.signed_narrow(4)),
        ("relu", 0.2, 0.0, IntegerGrid.unsigned(4)),
        ("relu6", 0.2, 0.0, IntegerGrid.unsigned(4)),
        ("relu6", 0.6, 0.0, IntegerGrid.unsigned(4)),  # 6 is below the largest code
        ("relu6", 0.4, 0.0, IntegerGrid.unsigned(4)),  # 6 is the largest code, and in float64 a little below
        ("hardswish", 0.15, -0.375, IntegerGrid.unsigned(4)),
        ("hardswish", 0.02, -0.375, IntegerGrid.unsigned(8)),
    ],
)
def test_codes_and_their_gradients(
    kernels: Operations, chain: tuple[Activation, float, float, IntegerGrid], of_batch: bool, threads: int
):
    """Codes differ by one where a value lies on a tie but for rounding: in less than one of 10,000."""
    activation, step, offset, grid = chain
    generator = torch.Generator().manual_seed(0)
    values = (2 * torch.randn(3, 24, 19, 17, generator=generator) + 1).contiguous(memory_format=torch.channels_last)
    outer = torch.randn(values.shape, generator=generator)  # of another memory order
    results = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for compute in (kernels.codes_of, codes_of):
        running = torch.zeros(24), torch.ones(24)
        gamma = torch.rand(24, generator=torch.Generator().manual_seed(1)) + 1.5
        leaves = [values.clone(memory_format=torch.preserve_format), gamma, torch.linspace(-1, 2, 24), torch.tensor(step)]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        behind = Behind(activation, QuantParams(grid, leaves[3], torch.tensor(1.0), offset))
        codes = compute(*leaves[:3], Statistics(*running, of_batch, 0.1, 1e-5), behind)
        results.append((codes.detach(), torch.autograd.grad(codes, leaves, outer), running))
    torch.set_num_threads(before)
    (found, found_gradients, found_running), (expected, expected_gradients, running) = results
    assert expected.unique().numel() > 5
    assert (found != expected).double().mean() < 1e-4
    assert (found - expected).abs().max() <= 1
    for one, other in zip(found_gradients + found_running, expected_gradients + running, strict=True):
        assert_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(7,), (33, 5), (8, 6, 3, 3), (16, 1, 5, 5)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_values_and_their_gradients(kernels: Operations, shape: tuple[int, ...], memory: torch.memory_format):
    """Whatever the memory order; sizes that are no multiple of anything."""
    generator = torch.Generator().manual_seed(0)
    values, outer = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    if len(shape) == 4:
        values = values.contiguous(memory_format=memory)
    results = []
    for compute in (kernels.quantize, quantize_ste):
        leaves = [leaf.requires_grad_() for leaf in (values.clone(), torch.tensor(0.21))]
        codes = compute(leaves[0], QuantParams(IntegerGrid.signed_narrow(4), leaves[1], torch.tensor(0.3), 0.1))
        results.append((codes.detach(), *torch.autograd.grad(codes, leaves, outer)))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)


LAYERS = {
    "pointwise": partial(nn.Conv2d, 12, 20, 1, bias=False),
    "depthwise": partial(nn.Conv2d, 12, 12, 5, stride=2, padding=2, groups=12, bias=False),
    "with bias": partial(nn.Conv2d, 12, 7, 3, padding=1, dilation=2),
    "linear": partial(nn.Linear, 12, 33),
}


@pytest.mark.slow
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("behind", ["a batch norm that trains", "a batch norm that does not", "nothing"])
@pytest.mark.parametrize("domain", ["unsigned", "signed", "hswish"])
@pytest.mark.parametrize("case", ["values", "codes", "frozen weight"])
def test_layers_on_codes_and_their_gradients(kernels: Operations, layer_name: str, behind: str, domain: Domain, case: str):
    """Output, and the gradients of input, weight, bias and all ranges. A frozen weight's ranges train.

    A batch norm that trains takes out what scales or shifts its whole input: those gradients are 0.
    """
    results = []
    for operations in (kernels, TORCH):
        torch.manual_seed(0)
        layer = layer_on_codes(LAYERS[layer_name](), domain)
        layer.weight.requires_grad_(case != "frozen weight")
        layer.takes_codes, layer.operations = case == "codes", operations
        norm = nn.BatchNorm2d(layer.weight.shape[0]).train(behind == "a batch norm that trains")
        layer.norm_after = () if behind == "nothing" else (norm,)
        layer.input_params, layer.weight_params = layer.activation_quantizer.params(), layer.weight_quantizer.params()
        inputs = torch.randn(3, 12, 9, 7).contiguous(memory_format=torch.channels_last)
        is_convolution = isinstance(layer, CodesConv2d)
        inputs = (inputs if is_convolution else inputs[:, :, 0, 0].contiguous()).requires_grad_()
        output = norm(layer(inputs)) if is_convolution and behind != "nothing" else layer(inputs)
        output.backward(torch.randn(output.shape))
        leaves = [
            inputs,
            layer.weight,
            layer.bias,
            *layer.weight_quantizer.parameters(),
            *layer.activation_quantizer.parameters(),
        ]
        results.append((output.detach(), [None if leaf is None or leaf.grad is None else leaf.grad for leaf in leaves]))
    (found, found_gradients), (expected, expected_gradients) = results
    assert_close(found, expected)
    assert expected_gradients[0].abs().max() > 0
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, zero=1.0)


def layer_on_codes(stock: nn.Conv2d | nn.Linear, domain: Domain) -> CodesConv2d | CodesLinear:
    """Return a layer on a stock layer's parameters whose ranges clip some of what they meet."""
    weight_quantizer, activation_quantizer = DuQWeight(), DuQ(domain)
    quantizers = {"weight_quantizer": weight_quantizer, "activation_quantizer": activation_quantizer}
    if isinstance(stock, nn.Conv2d):
        layer = CodesConv2d.from_float(stock, kind="conv", pad_value=activation_quantizer.offset, pads_offset=True, **quantizers)
    else:
        layer = CodesLinear.from_float(stock, kind="linear", **quantizers)
    layer.set_bits(4, 4)
    weight_quantizer.set_ranges(0.6 * stock.weight.detach().abs().max(), torch.tensor(0.3))
    activation_quantizer.set_ranges(torch.tensor(1.5), torch.tensor(1.9))
    return layer


@pytest.mark.slow
def test_a_layer_keeps_no_quantized_weight_for_backward(kernels: Operations):
    """Its input and its own weight, which is there anyway."""
    model = quantized(stock_network(TINY), 4).to(memory_format=torch.channels_last)
    network = folded_network(model, kernels).train()
    there = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    on_codes = [layer for layer in network.modules() if isinstance(layer, CodesConv2d | CodesLinear)]
    weights = {layer.weight.shape for layer in on_codes if layer.weight.numel() > 100}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        network(random_images(4, 32).contiguous(memory_format=torch.channels_last))
    assert any(tensor.shape in weights for tensor in kept)
    assert all(tensor.untyped_storage().data_ptr() in there for tensor in kept if tensor.shape in weights)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("offset", [0.0, -0.375])
def test_gated_codes_and_their_gradients(kernels: Operations, offset: float, threads: int):
    """More rows of an image than are summed in float; codes differ by one in less than one of 10,000."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 20, 19, 17, generator=generator).contiguous(memory_format=torch.channels_last)
    gate, outer = torch.rand(3, 20, 1, 1, generator=generator), torch.randn(values.shape, generator=generator)
    results = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for compute in (kernels.gated_codes, gated_codes):
        leaves = [values.clone(memory_format=torch.preserve_format), gate.clone(), torch.tensor(0.06)]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        codes = compute(*leaves[:2], QuantParams(IntegerGrid.unsigned(4), leaves[2], torch.tensor(1.0), offset))
        results.append((codes.detach(), torch.autograd.grad(codes, leaves, outer)))
    torch.set_num_threads(before)
    (found, found_gradients), (expected, expected_gradients) = results
    assert (found != expected).double().mean() < 1e-4
    assert (found - expected).abs().max() <= 1
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert one.shape == other.shape
        assert_close(one, other)


@pytest.mark.slow
def test_a_network_trains_on_kernels_as_on_torch(kernels: Operations):
    """The tiny network, whose codes do not happen to lie on ties."""
    gradients = []
    for compute in (partial(folded_network, operations=kernels), folded_network):
        model = quantized(stock_network(TINY), 4).to(memory_format=torch.channels_last)
        network = compute(model).train()
        torch.manual_seed(0)  # of dropout
        images = random_images(4, 32).contiguous(memory_format=torch.channels_last)
        network(images).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in gradients[1].items():
        assert (gradients[0][name] - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-9, name


@pytest.mark.slow
def test_what_the_kernels_do_not_know_is_left_to_torch(kernels: Operations):
    """Float64, and activations that are no rows of channels."""
    grid = IntegerGrid.unsigned(4)
    for values in (torch.randn(2, 4, 3, 3).double().contiguous(memory_format=torch.channels_last), torch.randn(2, 4, 3, 3)):
        ones = torch.ones(4, dtype=values.dtype)
        statistics = Statistics(torch.zeros_like(ones), ones, False, 0.1, 1e-5)
        behind = Behind("relu", QuantParams(grid, ones[0] / 3, ones[0]))
        given = values, ones, ones, statistics, behind
        assert torch.equal(kernels.codes_of(*given), codes_of(*given))
        assert torch.equal(
            kernels.gated_codes(values, ones.view(1, 4, 1, 1), behind.params),
            gated_codes(values, ones.view(1, 4, 1, 1), behind.params),
        )
    assert torch.equal(kernels.quantize(values.double(), behind.params), quantize_ste(values.double(), behind.params))
