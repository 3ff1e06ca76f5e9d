"""The kernels against the functions they stand for, in float32: equal but for rounding."""

import shutil
from functools import partial

import pytest
import torch
from torch import Tensor

from subfour.engine.chains import Activation
from subfour.engine.codes import Behind, Statistics, codes_of
from subfour.engine.compiled import compiled_operations
from subfour.engine.folded import TORCH, Operations, folded_network
from subfour.engine.gates import gated_codes
from subfour.engine.weights import scaled_weight
from subfour.ops import IntegerGrid, QuantParams, quantize_ste
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


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Within 1e-4 of the largest entry."""
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_without_a_compiler_the_folded_engine_computes_and_says_so(monkeypatch: pytest.MonkeyPatch):
    def fails(*given: object, **options: object) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr("torch.utils.cpp_extension.load", fails)
    with pytest.warns(UserWarning, match=r"^engine: compiled is not possible here, folded is used: no compiler"):
        assert compiled_operations.__wrapped__() is TORCH


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
def test_weights_and_values_and_their_gradients(kernels: Operations, shape: tuple[int, ...], memory: torch.memory_format):
    """Whatever the memory order; sizes that are no multiple of anything."""
    generator = torch.Generator().manual_seed(0)
    values, outer = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    if len(shape) == 4:
        values = values.contiguous(memory_format=memory)
    for compiled, torch_s in (
        (
            lambda *given: kernels.scaled_weight(*given, torch.tensor(0.7)),
            lambda *given: scaled_weight(*given, torch.tensor(0.7)),
        ),
        (kernels.quantize, quantize_ste),
    ):
        results = []
        for compute in (compiled, torch_s):
            leaves = [values.clone(), torch.tensor(0.21), torch.tensor(0.3)]
            leaves = [leaf.requires_grad_() for leaf in leaves]
            params = QuantParams(IntegerGrid.signed_narrow(4), leaves[1], leaves[2])
            result = compute(leaves[0], params)
            gradients = torch.autograd.grad(result, leaves, outer, allow_unused=True)
            results.append((result.detach(), *(leaf if leaf is not None else torch.zeros(()) for leaf in gradients)))
        for found, expected in zip(*results, strict=True):
            assert_close(found, expected)


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
