import torch
from torch import Tensor, nn

from subfour.convert.calibrate import set_bits
from subfour.engine.chains import Chain, Fold, find_folds
from subfour.quantizers import QuantizerName
from tests.convert.stock_networks import stock_network
from tests.profit.quantized_networks import quantized


def chained(*between: nn.Module, quantizer: QuantizerName = "duq") -> nn.Module:
    """Return a quantized network with something between its first batch norm and its second convolution."""
    torch.manual_seed(0)
    return quantized(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), *between),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
        ),
        4,
        quantizer=quantizer,
    )


def test_a_chain_is_found_with_each_activation_and_through_identities():
    assert find_folds(chained())["2"].before == Chain("1", "identity", None)
    for number, (module, name) in enumerate([(nn.ReLU(), "relu"), (nn.ReLU6(), "relu6"), (nn.Hardswish(), "hardswish")]):
        assert find_folds(chained(module))["3"].before == Chain("1", name, "2"), number
    assert find_folds(chained(nn.Identity(), nn.ReLU(), nn.Identity()))["5"].before == Chain("1", "relu", "3")


def test_what_nothing_feeds_alone_makes_its_own_codes():
    """A pool or a second activation lies between; the image has a quantizer that learns nothing."""
    folds = find_folds(chained(nn.ReLU()))
    assert folds == {"3": Fold(Chain("1", "relu", "2"), "4"), "7": Fold(None, None)}
    assert find_folds(chained(nn.ReLU(), nn.AvgPool2d(2)))["4"].before is None
    assert find_folds(chained(nn.Hardswish(), nn.ReLU()))["4"].before is None


class Skip(nn.Module):
    """A batch norm that a convolution reads, and a sum too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.branch, self.act, self.last = nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)
        self.other = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        values = self.act(self.norm(self.stem(images)))
        skipped = values + self.branch(values)
        return self.last(self.act(self.other(skipped)))


def test_values_that_a_skip_reads_stay_and_so_does_a_module_that_is_called_twice():
    folds = find_folds(quantized(Skip(), 4))
    assert folds == {"branch": Fold(None, None), "last": Fold(None, None)}


def test_a_batch_norm_without_scale_or_of_another_kind_stays():
    for norm in (nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8, track_running_stats=False)):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 3))
        assert find_folds(quantized(model, 4))["3"].before is None


def test_quantizers_with_gradients_of_their_own_stay_plain():
    assert find_folds(chained(nn.ReLU(), quantizer="lsq")) == {}
    assert find_folds(chained(nn.ReLU(), quantizer="pact-sawb")) == {}


def test_nothing_folds_at_32_bits():
    model = chained(nn.ReLU())
    set_bits(model, 4, 32)
    assert find_folds(model) == {}


def test_every_depthwise_layer_of_the_stock_networks_is_fed_by_a_chain():
    """They are the widest; timm's batch norms hold their activation."""
    for name in (
        "torchvision/mobilenet_v2",
        "torchvision/mobilenet_v3_large",
        "timm/mobilenetv3_small_050",
        "timm/mobilenetv2_050",
    ):
        model = quantized(stock_network(name), 4)
        folds = find_folds(model)
        depthwise = [fold for layer, fold in folds.items() if model.get_submodule(layer).kind == "depthwise"]
        assert len(depthwise) >= 10
        assert sum(fold.before is None for fold in depthwise) <= 1, name
        assert all(fold.norm_after is not None for fold in depthwise), name
