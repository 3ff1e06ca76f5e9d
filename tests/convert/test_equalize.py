import pytest
import torch
from torch import nn

from subfour.convert import equalize as module
from subfour.convert.equalize import equalize, find_pairs, replace_relu6
from tests.convert.stock_networks import random_images, stock_network


def two_layers(*, depthwise: bool = False) -> nn.Sequential:
    """Return two 1x1 convolutions with batch norm and ReLU between them, in float64, far from equal."""
    torch.manual_seed(0)
    second = nn.Conv2d(4, 4, 1, groups=4, bias=False) if depthwise else nn.Conv2d(4, 5, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), second).double().eval()
    if depthwise:
        model.append(nn.BatchNorm2d(4).double().eval())
    for norm in (layer for layer in model if isinstance(layer, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.01, 5)
    return model


def ranges(model: nn.Sequential, *, depthwise: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    return model[0].weight.abs().amax((1, 2, 3)), model[3].weight.abs().amax((1, 2, 3) if depthwise else (0, 2, 3))


@pytest.mark.parametrize("depthwise", [False, True])
def test_ranges_become_equal_and_the_function_stays(depthwise: bool, monkeypatch: pytest.MonkeyPatch):
    """Without absorption to float64's precision; the batch norm's gain is 1, its mean and variance are of what enters it."""
    monkeypatch.setattr(module, "ABSORBED_BEYOND", 1e9)
    model, images = two_layers(depthwise=depthwise), random_images(2, 8).double()
    with torch.no_grad():
        before = model(images)
        equalize(model)
        torch.testing.assert_close(model(images), before, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(*ranges(model, depthwise=depthwise), rtol=1e-2, atol=0)
    torch.testing.assert_close(model[1].weight, (model[1].running_var + model[1].eps).sqrt())


def test_one_pair_by_hand(monkeypatch: pytest.MonkeyPatch):
    """Gain 4 on weight 2, then 1/2: ranges 8 and 1/2, s = 4: weights 2 and 2, bias 3/4, the batch norm as it was seen from s."""
    monkeypatch.setattr(module, "ABSORBED_BEYOND", 1e9)
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0), nn.ReLU(), nn.Conv2d(1, 1, 1, bias=False))
    with torch.no_grad():
        for tensor, value in [
            *((model[0].weight, 2.0), (model[3].weight, 0.5), (model[1].weight, 8.0), (model[1].bias, 3.0)),
            *((model[1].running_mean, 5.0), (model[1].running_var, 4.0)),
        ]:
            tensor.fill_(value)
    equalize(model.eval())
    # gain 8/2 = 4: mean 5 * 4 / 4 = 5, variance 4 * 16 / 16 = 4, gamma = 2
    found = [model[0].weight, model[3].weight, model[1].bias, model[1].running_mean, model[1].running_var, model[1].weight]
    assert [value.item() for value in found] == pytest.approx([2, 2, 0.75, 5, 4, 2])


@pytest.mark.parametrize("depthwise", [False, True])
def test_absorption_changes_nothing_where_the_input_stays_above_it(depthwise: bool):
    """Biases beyond three deviations go; the outputs are what they were."""
    model = two_layers(depthwise=depthwise)
    model[1].bias.data.fill_(40)
    images = 0.1 * random_images(2, 8).double()
    with torch.no_grad():
        before = model(images)
        equalize(model)
        torch.testing.assert_close(model(images), before, rtol=1e-9, atol=1e-9)
    assert (model[1].bias <= 3 * model[1].weight + 1e-9).all()


def test_relu6_becomes_relu():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 4, 1))
    replace_relu6(model)
    assert type(model[2]) is nn.ReLU


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("torchvision/mobilenet_v2", 1 + 1 + 2 * 16),  # the stem and the first block's depthwise; expand, depthwise, project
        ("subfour/mobilenet_v1", 26),
        ("subfour/tiny_mobilenet_v3", 1),  # one block has ReLU; never across h-swish
    ],
)
def test_pairs_of_whole_networks(name: str, pairs: int):
    """Found across every ReLU that only one convolution reads; they become alike, and the logits stay finite."""
    model = stock_network(name)
    replace_relu6(model)
    found = find_pairs(model)
    assert len(found) == pairs
    equalize(model)
    assert model(random_images()).isfinite().all()


@pytest.mark.parametrize("between", [nn.Hardswish(), nn.Identity(), nn.MaxPool2d(1)])
def test_nothing_else_is_equalized(between: nn.Module):
    """An error that says so, where there is no pair at all."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), between, nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match="start: dfq finds no two convolutions"):
        equalize(model)
