import pytest
import torch
from torch import Tensor, nn

from subfour.convert.calibrate import calibrate, calibrate_for, needs_calibration, set_bits
from subfour.convert.rewrite import convert
from subfour.convert.skips import find_skips, skip_quantizers
from subfour.layers import quant_layers
from tests.convert.stock_networks import NORMALIZATION, random_images, stock_network


def quantized(skip_bits: int, bits: int = 4) -> nn.Module:
    model = stock_network("subfour/tiny_mobilenet_v3")
    convert(model, skip_bits=skip_bits, **NORMALIZATION)
    calibrate_for(model, bits, bits, [(random_images(8, 32), torch.zeros(8))])
    return model.eval()


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("subfour/tiny_mobilenet_v3", ["features.1", "features.3", "features.5"]),
        ("torchvision/mobilenet_v2", [f"features.{block}" for block in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]),
        (
            "timm/mobilenetv2_050",
            [f"blocks.{block}" for block in ["1.1", "2.1", "2.2", "3.1", "3.2", "3.3", "4.1", "4.2", "5.1", "5.2"]],
        ),
    ],
)
def test_every_residual_block_is_found(name: str, blocks: list[str]):
    """Those whose stride is 1 and whose width stays, checked by hand."""
    assert list(find_skips(stock_network(name))) == blocks


def test_the_skip_carries_the_codes_of_its_width():
    """2^bits values at most enter each block, and the sum that leaves it is of the quantized input."""
    model = quantized(skip_bits=3, bits=2)
    entering: dict[str, Tensor] = {}
    branches: dict[str, Tensor] = {}
    leaving: dict[str, Tensor] = {}
    for name, (block, skip) in skip_quantizers(model).items():
        assert skip.quantizer.bits == 3
        block.block.register_forward_pre_hook(lambda _, inputs, name=name: entering.update({name: inputs[0].clone()}))
        block.block.register_forward_hook(lambda _, __, output, name=name: branches.update({name: output.clone()}))
        block.register_forward_hook(lambda _, __, output, name=name: leaving.update({name: output.clone()}))
    with torch.no_grad():
        model(random_images(4, 32))
    assert entering.keys() == set(find_skips(stock_network("subfour/tiny_mobilenet_v3")))
    for name, values in entering.items():
        assert 1 < values.unique().numel() <= 2**3
        torch.testing.assert_close(leaving[name], branches[name] + values)


def test_skips_are_never_narrower_than_the_activations_and_float_with_float_ones():
    model = quantized(skip_bits=4)
    for activation_bits, expected in ((8, 8), (4, 4), (2, 4), (32, 32)):
        set_bits(model, 4, activation_bits)
        assert {skip.quantizer.bits for _, skip in skip_quantizers(model).values()} == {expected}


def test_a_skip_needs_its_range_like_any_other():
    """It has the domain of the layer that reads the same tensor: here h-swish behind the stem."""
    model = stock_network("subfour/tiny_mobilenet_v3")
    convert(model, skip_bits=8, **NORMALIZATION)
    set_bits(model, 32, 4)
    assert needs_calibration(model)
    calibrate(model, [(random_images(8, 32), torch.zeros(8))])
    assert not needs_calibration(model)
    found = {name: skip.quantizer for name, (_, skip) in skip_quantizers(model).items()}
    assert found["features.1"].domain == quant_layers(model)["features.1.block.0.0"].activation_quantizer.domain == "hswish"
    assert found["features.5"].domain == "signed"
    assert all(quantizer.initialized for quantizer in found.values())


def test_at_32_bits_there_is_nothing():
    """The same modules and state as ever."""
    assert skip_quantizers(quantized(skip_bits=32)) == {}


def test_a_network_without_skips_is_refused():
    with pytest.raises(ValueError, match="skip_bits: the network has no skip paths; use 32"):
        convert(stock_network("subfour/mobilenet_v1"), skip_bits=8, **NORMALIZATION)


class TopLevelSum(nn.Module):
    """A skip outside every block."""

    def __init__(self) -> None:
        """Make two layers."""
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Add."""
        inputs = self.first(images)
        return inputs + self.second(inputs)


def test_a_skip_that_begins_at_no_module_is_an_error_that_names_it():
    """Not a silently float skip."""
    with pytest.raises(ValueError, match="skip_bits: the sum in the model is not that of a residual block"):
        find_skips(TopLevelSum())


def test_skip_quantizers_lie_where_the_network_lies():
    """It is converted on its device."""
    model = stock_network("subfour/tiny_mobilenet_v3").to("meta")
    convert(model, skip_bits=8, **NORMALIZATION)
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
