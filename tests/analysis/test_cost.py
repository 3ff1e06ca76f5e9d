import pytest
import torch
from torch import nn

from subfour.analysis.cost import Profile, model_bytes, network_cost
from subfour.analysis.stock import stock_workload
from subfour.analysis.workload import measure_workload
from subfour.convert.calibrate import set_bits
from subfour.convert.rewrite import convert
from subfour.models import build_model

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.mark.parametrize(
    ("name", "bits", "megabytes"),
    [
        ("torchvision/mobilenet_v2", 32, 14.02),
        ("torchvision/mobilenet_v2", 4, 1.875),
        ("torchvision/mobilenet_v3_large", 8, 5.578),
        ("subfour/mobilenet_v1", 4, 2.196),
    ],
)
def test_the_papers_networks(name: str, bits: int, megabytes: float):
    """The sizes that reproduce the supplement's figures, 1000 classes, 1 MB = 1e6 bytes."""
    model = build_model(name, num_classes=1000).model
    convert(model, **HALF)
    set_bits(model, bits, bits)
    assert model_bytes(model) / 1e6 == pytest.approx(megabytes, rel=5e-4)


def test_a_small_model_by_hand():
    """27 x 4 + 2 x 64 + 4 x 3 + 2 x 32 bits = 312 bits; the activation width costs nothing."""
    model = nn.Sequential(nn.Conv2d(3, 1, 3, bias=False), nn.BatchNorm2d(1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 2))
    convert(model, **HALF)
    for activation_bits in (4, 32):
        set_bits(model, 4, activation_bits)
        assert model_bytes(model) == -(-(27 * 4 + 64 + 2 * 4 + 2 * 32) // 8)


def test_every_layer_counts_at_its_own_width():
    """One layer wider by a bit per weight."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, bias=False))
    convert(model, **HALF)
    set_bits(model, 4, 4)
    before = model_bytes(model)
    model[2].weight_quantizer.bits = 8
    assert model_bytes(model) - before == torch.Size([8, 8, 1, 1]).numel() * 4 // 8


@pytest.mark.parametrize(
    ("name", "bits", "profile", "gbops", "megabytes"),
    [
        ("torchvision/mobilenet_v2", 32, "ours", 329.4, 14.02),
        ("torchvision/mobilenet_v2", 4, "ours", 9.490, 1.875),
        ("torchvision/mobilenet_v3_large", 8, "uniform", 18.83, 5.578),
        ("subfour/mobilenet_v1", 4, "ours", 18.50, 2.196),
    ],
)
def test_the_supplements_figures_to_four_digits(name: str, bits: int, profile: Profile, gbops: float, megabytes: float):
    cost = network_cost(stock_workload(name, 224), weight_bits=bits, activation_bits=bits, profile=profile)
    assert (f"{cost.bops / 1e9:.4g}", f"{cost.bytes / 1e6:.4g}") == (f"{gbops:.4g}", f"{megabytes:.4g}")


def small() -> nn.Sequential:
    """A converted network whose costs are written out below: a stem of 8 x 8 and a classifier of two classes."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(2, 2))
    convert(model, **HALF)
    return model


def test_bit_operations_by_hand():
    """54 weights at 36 places, 8-bit input: 54 * 36 * (8*4 + 8 + 4 + log2 27) + 54*4; then 4 * (16 + 8 + 1) + 16."""
    stem, head = network_cost(measure_workload(small(), 8), weight_bits=4, activation_bits=4).layers
    assert stem.bops == pytest.approx(54 * 36 * (44 + 4.754887502163468) + 216)
    assert head.bops == 4 * (16 + 8 + 1) + 16


def test_the_fetch_of_the_parameters_is_an_option():
    workload = measure_workload(small(), 8)
    widths = {"weight_bits": 4, "activation_bits": 4}
    with_fetch, without = network_cost(workload, **widths), network_cost(workload, **widths, fetch=False)
    assert with_fetch.bops - without.bops == (54 + 4) * 4


def test_the_profiles_differ_in_the_first_layer_and_in_squeeze_and_excitation_only():
    workload = stock_workload("torchvision/mobilenet_v3_small", 224)
    ours, uniform = (network_cost(workload, weight_bits=4, activation_bits=4, profile=p) for p in ("ours", "uniform"))
    kinds = {mine.kind for mine, theirs in zip(ours.layers, uniform.layers, strict=True) if mine.bops != theirs.bops}
    assert kinds == {"stem", "se"}
    assert {layer.input_bits for layer in uniform.layers} == {4}


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8, 32])
def test_the_size_is_that_of_a_model_at_these_widths(bits: int):
    model = build_model("subfour/tiny_mobilenet_v3", num_classes=10).model
    convert(model, **HALF)
    set_bits(model, bits, bits)
    assert network_cost(measure_workload(model, 32), weight_bits=bits, activation_bits=bits).bytes == model_bytes(model)


class Residual(nn.Module):
    """A stem, and a block whose input waits while its two layers run."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.stem, self.expand, self.project = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 6, 1), nn.Conv2d(6, 2, 1)
        self.relu = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the block."""
        x = self.relu(self.stem(images))
        return x + self.project(self.relu(self.expand(x)))


@pytest.mark.parametrize(
    ("bits", "by_hand"),
    [
        (4, [3 * 8 + 2 * 16, 2 * 16 + 6 * 4, 6 * 4 + 2 * 16 + 2 * 16]),
        (32, [5 * 32, 8 * 32, 10 * 32]),
    ],
)
def test_activation_memory_counts_input_output_and_what_a_skip_waits_for(bits: int, by_hand: list[int]):
    """Bits per pixel of the stem, the expansion, the projection; a tensor that waits has 16 bits and counts once."""
    model = Residual()
    convert(model, **HALF)
    cost = network_cost(measure_workload(model, 4), weight_bits=bits, activation_bits=bits)
    assert [layer.activation_bytes for layer in cost.layers] == [bits_per_pixel * 16 / 8 for bits_per_pixel in by_hand]
    assert cost.peak_activation_bytes == max(by_hand) * 2
