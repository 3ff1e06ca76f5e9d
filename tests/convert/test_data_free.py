import pytest
import torch
from torch import nn

from subfour.convert.calibrate import calibrate_weights, needs_calibration, set_bits
from subfour.convert.data_free import SAMPLES, correct_biases, input_samples, set_ranges
from subfour.convert.equalize import equalize
from subfour.convert.rewrite import convert
from subfour.layers import quant_layers
from subfour.quantizers import QuantizerName
from tests.convert.stock_networks import NORMALIZATION, random_images, stock_network


def converted(model: nn.Module, weight_bits: int = 3, activation_bits: int = 4, quantizer: QuantizerName = "affine") -> nn.Module:
    convert(model, quantizer=quantizer, **NORMALIZATION)
    set_bits(model, weight_bits, activation_bits)
    calibrate_weights(model)
    return model.eval()


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=4), nn.BatchNorm2d(4))
    for norm in (model[1], model[4]):
        nn.init.uniform_(norm.weight, -2, 2)
        nn.init.normal_(norm.bias)
    return model


def test_samples_are_those_of_the_batch_norm_through_relu():
    """By hand: with mean 1 and deviation 2 the mean of the positive part is Phi(1/2) + 2 phi(1/2) = 1.3956."""
    model = two_layers()
    with torch.no_grad():
        model[1].weight.fill_(-2)
        model[1].bias.fill_(1)
    samples = input_samples(converted(model))["3"]
    assert samples.shape == (SAMPLES, 8)
    assert samples.min() == 0
    assert samples.mean().item() == pytest.approx(1.3956, abs=0.03)


def test_corrected_biases_take_back_what_quantized_weights_add_to_the_mean():
    """On an input with the means that were assumed, each channel's output has the float network's mean again."""
    model = converted(two_layers(), activation_bits=32)
    mean = input_samples(model)["3"].mean(dim=0)[None, :, None, None].expand(1, -1, 3, 3)
    behind = model[3:]
    with torch.no_grad():
        set_bits(model, 32, 32)
        floating = behind(mean)
        set_bits(model, 3, 32)
        assert (behind(mean) - floating).abs().max() > 1e-2
        correct_biases(model)
        torch.testing.assert_close(behind(mean), floating, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v2", "subfour/mobilenet_v1", "timm/mobilenetv2_050"])
def test_relu_networks_get_every_range_without_an_image(name: str):
    """Sums and pools included; equalized or not; the logits are finite and not all alike."""
    model = stock_network(name)
    equalize(model)
    converted(model)
    assert needs_calibration(model)
    set_ranges(model)
    correct_biases(model)
    assert not needs_calibration(model)
    with torch.no_grad():
        logits = model(random_images())
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


def test_what_cannot_be_known_without_data_is_named():
    """A squeeze-and-excitation layer reads what no batch norm gives."""
    with pytest.raises(ValueError, match=r"features\.3\.block\.2\.fc2: nothing is known of its input without data"):
        set_ranges(converted(stock_network("subfour/tiny_mobilenet_v3")))


def test_every_layer_but_the_stem_is_sampled():
    model = converted(stock_network("torchvision/mobilenet_v2"))
    assert [*input_samples(model)] == [name for name, layer in quant_layers(model).items() if layer.kind != "stem"]


def test_biases_are_corrected_by_what_is_deployed_also_in_training_mode():
    """UNIQ adds noise to weights that train, which is none of what quantizing adds to the mean. The mode stays."""
    corrected = []
    for seed in (0, 1):
        model = converted(two_layers(), quantizer="uniq").train()
        before = model[3].weight_quantizer.mean.clone()
        torch.manual_seed(seed)
        correct_biases(model)
        assert model.training
        assert torch.equal(model[3].weight_quantizer.mean, before)
        corrected.append(model[4].running_mean.clone())
    assert torch.equal(*corrected)
    assert corrected[0].any()


def test_a_layer_whose_input_tells_nothing_of_a_range_is_named():
    """Behind a batch norm that has switched off all of its channels."""
    model = two_layers()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.zero_()
    with pytest.raises(ValueError, match=r"^3: samples: no value to set a range from"):
        set_ranges(converted(model))
