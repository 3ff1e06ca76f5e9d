"""The product with a gate straight to codes equals the product, then the quantizer."""

import copy

import pytest
import torch
from saved_memory import saved_bytes
from torch import Tensor, nn

from subfour.engine.chains import find_folds
from subfour.engine.folded import folded_network
from subfour.engine.gates import Factor, FactorOfGate, gated_codes
from subfour.ops import IntegerGrid, QuantParams, quantize_ste
from tests.convert.stock_networks import random_images, stock_network
from tests.engine.test_folded import assert_same, step, without_dropout
from tests.profit.quantized_networks import TINY, quantized


def random_product() -> tuple[Tensor, Tensor, Tensor]:
    """Return values, a gate and the gradient of codes, in float64."""
    generator = torch.Generator().manual_seed(0)
    values, outer = (torch.randn(3, 5, 7, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    return values, torch.rand(3, 5, 1, 1, generator=generator, dtype=torch.float64), outer


@pytest.mark.parametrize("grid", [IntegerGrid.unsigned(4), IntegerGrid.signed_narrow(4), IntegerGrid.unsigned(8)])
@pytest.mark.parametrize("offset", [0.0, -0.375])
def test_codes_and_gradients_are_those_of_a_product_and_a_quantizer(grid: IntegerGrid, offset: float):
    values, gate, outer = random_product()
    results = []
    for compute in (gated_codes, lambda values, gate, params: quantize_ste(values * gate, params)):
        leaves = [leaf.clone().requires_grad_() for leaf in (values, gate, torch.tensor(0.07, dtype=torch.float64))]
        codes = compute(*leaves[:2], QuantParams(grid, leaves[2], torch.tensor(1.0), offset))
        results.append((codes.detach(), torch.autograd.grad(codes, leaves, outer)))
    (found, found_gradients), (expected, expected_gradients) = results
    assert torch.equal(found, expected)
    assert found.unique().numel() > 10
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-12 * other.abs().max()


def test_codes_are_made_in_float32_from_16_bits():
    values, gate, outer = (tensor.bfloat16() for tensor in random_product())
    params = QuantParams(IntegerGrid.unsigned(8), torch.tensor(0.007), torch.tensor(1.0))
    codes = values.requires_grad_() * Factor(gate, params, gated_codes)
    assert torch.equal(codes, quantize_ste(values.float() * gate.float(), params))
    assert torch.autograd.grad(codes, values, outer.float())[0].dtype == torch.bfloat16


@pytest.mark.parametrize("name", [TINY, "torchvision/mobilenet_v3_small", "timm/mobilenetv3_small_050", "timm/mnasnet_small"])
def test_every_gate_of_the_stock_networks_gives_codes(name: str):
    """Whichever operand it is, and whether it ends with a sigmoid or a hard one."""
    network = folded_network(quantized(stock_network(name), 4))
    gates = [module for module in network.modules() if isinstance(module, FactorOfGate)]
    assert len(gates) == sum(isinstance(module, nn.Sigmoid | nn.Hardsigmoid) for module in network.modules()) >= 2


def test_a_network_of_gates_with_a_sigmoid_equals_the_plain_one():
    """The other stock networks stand in test_folded.py."""
    plain = without_dropout(quantized(stock_network("timm/mnasnet_small"), 4))
    model = copy.deepcopy(plain)
    images = random_images(4, 64).double()
    assert_same(step(folded_network(model).train(), model, images), step(plain.train(), plain, images))


class Gated(nn.Module):
    """A product with a gate, which a layer reads, or a layer and a sum."""

    def __init__(self, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.stem, self.norm, self.act = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.pool, self.squeeze, self.gate = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid()
        self.last, self.norm_after = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        values = self.act(self.norm(self.stem(images)))
        product = values * self.gate(self.squeeze(self.pool(values)))
        mapped = self.norm_after(self.last(product))
        return (mapped + product if self.skips else mapped).mean((2, 3))


def test_a_product_that_a_skip_reads_too_stays_a_product():
    assert [find_folds(quantized(Gated(skips), 4))["last"].gate for skips in (False, True)] == ["gate", None]


def test_a_product_s_values_are_not_kept_beside_its_codes():
    """The codes alone are kept, as the product is in float; the rest of both twins is the same."""
    images = random_images(2, 34)
    product = 2 * 8 * 32 * 32 * 4  # bytes
    kept = []
    for skips in (False, True):
        network = folded_network(quantized(Gated(skips), 4)).train()
        kept.append(saved_bytes(lambda network=network: network(images), network, images))
    assert kept[1] - kept[0] == product
