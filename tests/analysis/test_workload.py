import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from subfour.analysis.stock import stock_workload
from subfour.analysis.workload import measure_workload
from subfour.convert.rewrite import convert
from tests.convert.stock_networks import NAMES, NORMALIZATION, stock_network


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("subfour/mobilenet_v1", 568_740_352),
        ("torchvision/mobilenet_v2", 300_774_272),
        ("torchvision/mobilenet_v3_large", 216_589_760),
    ],
)
def test_macs_of_the_papers_networks(name: str, macs: int):
    assert sum(layer.macs for layer in stock_workload(name, 224).layers) == macs


@pytest.mark.parametrize("name", NAMES)
def test_macs_are_half_the_flops_that_torch_counts(name: str):
    model = stock_network(name).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 96, 96, device="meta"))
    convert(model, **NORMALIZATION)
    assert 2 * sum(layer.macs for layer in measure_workload(model, 96).layers) == counter.get_total_flops()


def test_layers_come_in_the_order_in_which_they_run():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Conv2d(4, 2, 1), nn.Conv2d(3, 4, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(images).relu())

    model = Backwards()
    convert(model, **NORMALIZATION)
    assert [layer.name for layer in measure_workload(model, 4).layers] == ["first", "last"]


def test_a_gated_tensor_waits_while_its_gate_is_computed():
    """In the tiny network's first squeeze-and-excitation: what is pooled is multiplied afterwards."""
    layers = stock_workload("subfour/tiny_mobilenet_v3", 32).layers
    first = next(index for index, layer in enumerate(layers) if layer.kind == "se")
    gated, fc1, fc2 = layers[first - 1 : first + 2]
    assert gated.output_waits
    assert fc1.waiting >= gated.outputs
    assert fc2.waiting >= gated.outputs
    assert (fc1.inputs, fc2.outputs) == (fc1.fan_in, fc1.fan_in)


def test_measuring_leaves_the_model_alone():
    model = stock_network("subfour/tiny_mobilenet_v3").train()
    convert(model, **NORMALIZATION)
    before = copy.deepcopy(model.state_dict())
    measure_workload(model, 32)
    assert model.training
    assert all(torch.equal(value.nan_to_num(), model.state_dict()[name].nan_to_num()) for name, value in before.items())


def test_an_image_too_small_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 5))
    convert(model, **NORMALIZATION)
    with pytest.raises(ValueError, match="resolution: the network cannot compute on 4 pixels"):
        measure_workload(model, 4)
