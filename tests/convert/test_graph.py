"""What feeds each layer, on small networks written for one case each."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's name)

from subfour.convert.graph import Site, find_sites

Operation = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """Two convolutions; a test decides what lies between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.between = between
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.between(self.stem(images)))


class Function(nn.Module):
    """A function in the clothes of a module, so that torch.fx looks inside."""

    def __init__(self, function: Operation) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation from whatever parts."""

    def __init__(self, pool: Operation, reduce: nn.Module, expand: nn.Module, gate: Operation) -> None:
        super().__init__()
        self.pool, self.reduce, self.expand, self.gate = pool, reduce, expand, gate

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gate(self.expand(F.relu(self.reduce(self.pool(x)))))
        return x * gates.view(x.shape[0], 8, 1, 1)


def convs() -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)


def linears() -> tuple[nn.Module, nn.Module]:
    return nn.Linear(8, 4), nn.Linear(4, 8)


def site(model: nn.Module, name: str) -> Site:
    return next(site for site in find_sites(model) if site.name == name)


def fed_by(between: nn.Module | Operation) -> Site:
    return site(Network(between if isinstance(between, nn.Module) else Function(between)), "last")


@pytest.mark.parametrize(
    ("between", "domain"),
    [
        (nn.ReLU(), "unsigned"),
        (nn.ReLU6(inplace=True), "unsigned"),
        (F.relu, "unsigned"),
        (F.relu6, "unsigned"),
        (torch.relu, "unsigned"),
        (lambda x: x.relu_(), "unsigned"),
        (nn.Hardswish(), "hswish"),
        (F.hardswish, "hswish"),
        (timm.layers.activations.HardSwish(), "hswish"),
        (nn.BatchNorm2d(8), "signed"),
        (nn.SyncBatchNorm(8), "signed"),
        (nn.Identity(), "signed"),
        (timm.layers.BatchNormAct2d(8, act_layer=nn.ReLU), "unsigned"),
        (timm.layers.BatchNormAct2d(8, act_layer=nn.Hardswish), "hswish"),
        (timm.layers.BatchNormAct2d(8, apply_act=False), "signed"),
        (timm.layers.BatchNormAct2d(8, drop_layer=nn.Dropout2d), "unsigned"),
    ],
)
def test_the_domain_follows_the_last_operation(between: nn.Module | Operation, domain: str):
    """Module, function and method forms of one operation give one domain."""
    assert fed_by(between).domain == domain


@pytest.mark.parametrize(
    "keep",
    [
        nn.Dropout(),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1, 0),
        timm.layers.DropPath(0.1),
        lambda x: F.dropout(x, 0.1),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: torch.mean(x, dim=[2, 3], keepdim=True),
        lambda x: torch.flatten(x, 1).view(1, 8, -1, 1),
    ],
)
def test_pooling_dropout_and_reshaping_keep_the_domain(keep: nn.Module | Operation):
    """What is pooled, dropped or reshaped decides."""
    keep = keep if isinstance(keep, nn.Module) else Function(keep)
    for activation, domain in ((nn.ReLU(), "unsigned"), (nn.Hardswish(), "hswish"), (nn.BatchNorm2d(8), "signed")):
        assert fed_by(nn.Sequential(activation, keep)).domain == domain


@pytest.mark.parametrize(
    ("add", "domain"),
    [
        (lambda x: F.relu(x) + F.relu6(x), "unsigned"),
        (lambda x: torch.add(F.relu(x), x), "signed"),
        (lambda x: F.hardswish(x).add_(x), "signed"),
        (lambda x: F.hardswish(x) + F.hardswish(x), "signed"),
    ],
)
def test_a_residual_sum_is_unsigned_only_if_both_operands_are(add: Operation, domain: str):
    """Two h-swish outputs may add up to -3/4, below what the h-swish domain holds."""
    assert fed_by(add).domain == domain


@pytest.mark.parametrize(
    "excite",
    [
        SqueezeExcite(nn.AdaptiveAvgPool2d(1), *convs(), nn.Hardsigmoid()),
        SqueezeExcite(nn.AdaptiveAvgPool2d((1, 1)), *convs(), timm.layers.Sigmoid()),
        SqueezeExcite(lambda x: x.mean((2, 3)), *linears(), F.hardsigmoid),
        SqueezeExcite(lambda x: F.adaptive_avg_pool2d(x, (1, 1)).flatten(1), *linears(), torch.sigmoid),
    ],
)
def test_squeeze_and_excitation_is_known_by_its_structure(excite: nn.Module):
    """Linear layers and convolutions alike are SE, and what is gated keeps its domain."""
    model = Network(nn.Sequential(nn.Hardswish(), excite))
    reduce, expand, last = find_sites(model)[1:]
    assert [(reduce.kind, reduce.domain), (expand.kind, expand.domain)] == [("se", "hswish"), ("se", "unsigned")]
    assert (last.kind, last.domain, last.source) == ("pointwise", "hswish", "Hardswish between.0, gated")


def test_se_before_the_nonlinearity_gates_a_signed_tensor():
    """Gate and pool read the batch norm, the next layer the activation."""
    excite = SqueezeExcite(nn.AdaptiveAvgPool2d(1), *convs(), nn.Sigmoid())
    model = Network(nn.Sequential(nn.BatchNorm2d(8), excite, nn.Hardswish()))
    assert [site.domain for site in find_sites(model)] == ["image", "signed", "unsigned", "hswish"]


def test_layers_after_the_last_pool_are_no_se_without_a_product():
    """A classifier also follows a global pool."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Sigmoid())
    assert [site.kind for site in find_sites(model)] == ["stem", "linear"]


def test_kinds_follow_shape_and_place():
    """Stem by what feeds it, the others by groups and kernel size."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.Conv2d(16, 8, 1),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.Conv2d(8, 1, 3),
        nn.Conv2d(1, 8, 1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    kinds = [site.kind for site in find_sites(model)]
    assert kinds == ["stem", "depthwise", "pointwise", "conv", "conv", "pointwise", "linear"]


@pytest.mark.parametrize(
    ("between", "named"),
    [
        (nn.SiLU(), "SiLU between"),
        (nn.Sequential(nn.GELU(), nn.Dropout()), "GELU between.0"),
        (timm.layers.activations.Swish(), "mul in between"),
        (F.silu, "silu in between"),
        (lambda x: torch.softmax(x, 1), "softmax in between"),
        (lambda x: torch.cat([x, x], 1), "cat in between"),
        (lambda x: x * F.relu6(x + 3) / 6, "truediv in between"),
        (lambda x: x * torch.sigmoid(x), "mul in between"),
        (lambda x: F.relu(x) + 1, "add in between"),
        (lambda x: x + F.silu(x), "add in between"),
        (torch.sigmoid, "sigmoid in between"),
        (timm.layers.BatchNormAct2d(8, act_layer=nn.SiLU), "BatchNormAct2d between (SiLU)"),
    ],
)
def test_an_input_that_cannot_be_placed_is_an_error_that_names_it(between: nn.Module | Operation, named: str):
    """The layer, what feeds it and what is supported; never silently float."""
    with pytest.raises(ValueError, match=r"^last: it is fed by ") as error:
        fed_by(between)
    assert named in str(error.value)
    assert "supported are the image, ReLU" in str(error.value)


def test_a_layer_called_twice_is_an_error_that_names_it():
    """Its one quantizer would see two inputs."""
    shared = nn.Conv2d(8, 8, 1)
    with pytest.raises(ValueError, match=r"between.0: the model calls it twice"):
        fed_by(nn.Sequential(shared, nn.ReLU(), shared))


def test_a_layer_never_called_is_an_error_that_names_it():
    """It would stay uncalibrated."""
    model = Network(nn.ReLU())
    model.spare = nn.Linear(8, 8)
    with pytest.raises(ValueError, match="spare: the model never calls it"):
        find_sites(model)


class Branching(nn.Module):
    """Control flow on the values: torch.fx cannot trace it."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_an_untraceable_model_is_an_error_with_the_reason():
    """What torch.fx says is passed on."""
    with pytest.raises(ValueError, match=r"cannot trace Network.*control flow"):
        fed_by(Branching())


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(8, 8, 1), nn.Conv1d(8, 8, 1), nn.Bilinear(8, 8, 8)])
def test_a_layer_of_another_class_is_an_error_that_names_it(layer: nn.Module):
    """It has a weight and would stay float."""
    with pytest.raises(ValueError, match=f"between.weight: {type(layer).__name__} would stay float"):
        fed_by(layer)


def test_a_convolution_with_its_own_forward_is_an_error_that_names_it():
    """TensorFlow's padding depends on the input size and would be lost."""
    with pytest.raises(ValueError, match="conv_stem: Conv2dSame computes in its own way"):
        find_sites(timm.create_model("tf_mobilenetv3_small_minimal_100"))


def test_reading_leaves_the_model_as_it_is():
    """No mode, buffer or module changes."""
    model = timm.create_model("mobilenetv3_small_050").train()
    model.blocks[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    find_sites(model)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_difference_is_no_sum():
    class Difference(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.add(x.relu(), F.relu(x), alpha=-1)

    with pytest.raises(ValueError, match="last"):
        find_sites(Network(Difference()))


def test_an_activation_with_a_forward_of_its_own_is_not_its_base():
    class Leaky(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return F.leaky_relu(x)

    with pytest.raises(ValueError, match="last"):
        find_sites(Network(Leaky()))
