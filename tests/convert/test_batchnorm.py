import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.convert.batchnorm import batchnorm_after
from subfour.convert.rewrite import convert
from subfour.layers import QuantConv2d, quant_layers
from tests.convert.stock_networks import NORMALIZATION, random_images, stock_network
from tests.profit.quantized_networks import TINY, quantized, tiny


def block(bits: int, granularity: str = "layer") -> nn.Module:
    """Return a convolution with a batch norm far from identity, one gain negative and one zero, fused and quantized."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([3.0, -0.5, 1.0, 0.0]))
        model[1].bias.uniform_(-1, 1)
        model[1].running_mean.uniform_(-1, 1)
        model[1].running_var.uniform_(0.1, 4)
    return quantized(model, bits, weight_granularity=granularity, batchnorm="fused")


def equation_3(model: nn.Module, images: Tensor) -> Tensor:
    """Q(gamma / sqrt(var + eps) W) * a + beta - gamma mean / sqrt(var + eps), letter by letter in float64."""
    conv, norm = model
    assert isinstance(conv, QuantConv2d)
    gain = (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).detach()
    folded = conv.weight_quantizer((gain[:, None, None, None] * conv.weight.double()).float()).double()
    shift = norm.bias.double() - gain * norm.running_mean.double()
    return F.conv2d(conv.quantized_input(images).double(), folded) + shift[:, None, None]


@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_it_is_the_supplements_equation_3_in_evaluation_mode(bits: int, granularity: str):
    """Negative gains and a channel that is switched off included."""
    model, images = block(bits, granularity), random_images(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(images).double(), equation_3(model, images), rtol=1e-5, atol=1e-5)


def test_the_weight_is_rounded_with_its_gain_and_not_without():
    """On paper, 2 bits: gains 1 and 3 make of weights 1 and 1 a folded 1 and 3, which a ternary layer sees as 0 and 3."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2, eps=0))
    nn.init.ones_(model[0].weight)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, 3.0]))
    quantized(model, 2, batchnorm="fused")
    model[0].weight_quantizer.set_ranges(torch.tensor(3.0))
    assert model[0].quantized_weight().flatten(1)[:, 0].tolist() == pytest.approx([0, 1])
    quantized(plain := nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2, eps=0)), 2)
    nn.init.ones_(plain[0].weight)
    plain[0].weight_quantizer.set_ranges(torch.tensor(1.0))
    assert plain[0].quantized_weight().flatten().tolist() == [1] * 6


def test_training_moves_everything_and_stays_finite():
    """Weights, gains, ranges; the state dict has no entry twice."""
    model = tiny(4, batchnorm="fused").train()
    assert model.state_dict().keys() == tiny(4).state_dict().keys()
    model(random_images(4, 32)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_float_weights_are_not_touched():
    """At 32 bits the network computes what the stock network computes, bit for bit."""
    model = quantized(stock_network(TINY), 32, batchnorm="fused", padding="zero")
    with torch.no_grad():
        assert torch.equal(model(random_images()), stock_network(TINY)(random_images()))


def test_every_convolution_with_a_batch_norm_is_fused_and_no_other():
    model = tiny(4, batchnorm="fused")
    fused = {name for name, layer in quant_layers(model).items() if layer.fused_batchnorm}
    assert fused == set(batchnorm_after(model))
    assert {quant_layers(model)[name].kind for name in quant_layers(model).keys() - fused} == {"se", "linear"}


class DefinedInAnotherOrder(nn.Module):
    """Two convolutions and their batch norms, defined kind by kind."""

    def __init__(self) -> None:
        """Make them."""
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.norm_of_first, self.norm_of_second = nn.BatchNorm2d(4), nn.BatchNorm2d(5)

    def forward(self, images: Tensor) -> Tensor:
        """Return features [N, 5, H - 4, W - 4]."""
        features: Tensor = self.norm_of_second(self.second(self.norm_of_first(self.first(images)).relu()))
        return features


def test_a_batch_norm_belongs_to_the_convolution_it_reads():
    """Whatever the order of definition."""
    model = DefinedInAnotherOrder()
    convert(model, **NORMALIZATION)
    assert batchnorm_after(model) == {"first": model.norm_of_first, "second": model.norm_of_second}
