from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.convert.calibrate import set_bits
from subfour.convert.rewrite import convert
from subfour.layers import freezable_layers, quant_layers
from subfour.profit.config import ProfitConfig, ScheduleConfig
from subfour.profit.freezing import build_optimizer, freeze_order, frozen_layers, set_trainable
from subfour.profit.phases import Phase, PhaseKind
from subfour.quantizers import PACT, Quantizer, QuantizerName
from tests.convert.stock_networks import NAMES, NORMALIZATION, random_images, stock_network
from tests.profit.quantized_networks import tiny

COVERS = ["weights", "weights+ranges", "weights+ranges+batchnorm"]

RATES = ScheduleConfig(lr=0.5, float_lr=0.25, range_lr_scale=0.125, weight_decay=0.0625, momentum=0.75)


def phase_of(kind: PhaseKind, frozen: str = "0", *, weight_bits: int = 4, activation_bits: int = 4) -> Phase:
    return Phase(kind=kind, weight_bits=weight_bits, activation_bits=activation_bits, epochs=1, frozen=Fraction(frozen))


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names(model: nn.Module) -> tuple[set[str], set[str], set[str]]:
    """Return the names of the weights, of batch-norm parameters and biases, and of ranges."""
    weights = {f"{name}.weight" for name in quant_layers(model)}
    ranges = {name for name, _ in model.named_parameters() if "_quantizer." in name}
    return weights, {name for name, _ in model.named_parameters()} - weights - ranges, ranges


def norms_behind(model: nn.Module) -> dict[str, str]:
    """Return the batch norm that takes each convolution's output, found by running the model."""
    made: dict[int, tuple[str, Tensor]] = {}
    behind = {}

    def keep(name: str, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        made[id(output)] = (name, output)

    def look(name: str, _: nn.Module, inputs: tuple[Tensor]) -> None:
        if id(inputs[0]) in made:
            behind[made[id(inputs[0])][0]] = name

    for name, module in model.named_modules():
        if name in quant_layers(model):
            module.register_forward_hook(partial(keep, name))
        elif isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(partial(look, name))
    with torch.no_grad():
        model.eval()(random_images())
    return behind


def test_the_order_of_each_method():
    """AIWQ's, its reverse, or one drawn from the seed: another for another seed, the same for the same."""
    ranking = [f"layer{number}" for number in range(20)]
    assert freeze_order(ranking, "profit", 0) == ranking
    assert freeze_order(ranking, "reversed-order", 0) == ranking[::-1]
    drawn = [freeze_order(ranking, "random-order", seed) for seed in (0, 1)]
    assert all(sorted(order) == sorted(ranking) for order in drawn)
    assert drawn[0] != drawn[1] != ranking != drawn[0]
    assert freeze_order(ranking[::-1], "random-order", 0) == drawn[0]  # AIWQ has no part in it


def test_thirds_of_the_layers():
    """Floors of L/3 and 2L/3; nothing of nothing."""
    assert [len(frozen_layers("x" * count, Fraction(1, 3))) for count in (46, 3, 2, 0)] == [15, 1, 0, 0]
    assert [len(frozen_layers("x" * count, Fraction(2, 3))) for count in (46, 3, 2, 0)] == [30, 2, 1, 0]
    assert frozen_layers(["a", "b", "c"], Fraction(2, 3)) == ["a", "b"]


@pytest.mark.parametrize("quantizer", ["duq", "pact-sawb"])
def test_what_trains_in_each_kind_of_phase(quantizer: QuantizerName):
    """Everything, but ranges of what is still float; in stabilize phases no weight, the classifier's neither."""
    model = tiny(4, quantizer=quantizer)
    weights, others, ranges = names(model)
    config = ProfitConfig()
    for kind in ("finetune", "sample"):
        assert set_trainable(model, phase_of(kind), [], config) == []
        assert trainable(model) == weights | others | ranges
    set_trainable(model, phase_of("stabilize"), [], config)
    assert trainable(model) == others | ranges
    set_bits(model, 32, 4)
    set_trainable(model, phase_of("finetune", weight_bits=32), [], config)
    assert trainable(model) == weights | others | {name for name in ranges if ".activation_quantizer." in name}
    set_bits(model, 32, 32)
    set_trainable(model, phase_of("float", weight_bits=32, activation_bits=32), [], config)
    assert trainable(model) == weights | others


@pytest.mark.parametrize("covers", COVERS)
def test_what_freezing_covers(covers: str):
    """The most unstable third: weights; their and their inputs' ranges too; scale and shift behind them as well."""
    model = tiny(4)
    everything = {name for name, _ in model.named_parameters()}
    order = list(freezable_layers(model))[::-1]
    frozen = set_trainable(model, phase_of("finetune", "1/3"), order, ProfitConfig(covers=covers))
    assert frozen == order[:5]
    expected = {f"{name}.weight" for name in frozen}
    if covers != "weights":
        expected |= {name for name in everything if "_quantizer." in name and name.rsplit(".", 2)[0] in frozen}
    if covers == "weights+ranges+batchnorm":
        behind = norms_behind(model)
        expected |= {f"{behind[name]}.{part}" for name in frozen for part in ("weight", "bias")}
    assert everything - trainable(model) == expected


def test_freezing_is_lifted():
    """The next phase decides anew."""
    model = tiny(4)
    order = list(freezable_layers(model))
    set_trainable(model, phase_of("finetune", "2/3"), order, ProfitConfig(covers=COVERS[2]))
    set_trainable(model, phase_of("finetune"), order, ProfitConfig())
    assert trainable(model) == {name for name, _ in model.named_parameters()}


def test_freezing_without_an_order_is_an_error():
    """Layers are never frozen at random."""
    with pytest.raises(RuntimeError, match="no phase before it sampled AIWQ"):
        set_trainable(tiny(4), phase_of("finetune", "1/3"), [], ProfitConfig())


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_norm_behind_each_convolution_is_found(name: str):
    """In every library's way of writing these blocks it is the next one defined; timm's v3 heads have none."""
    model = stock_network(name)
    convert(model, **NORMALIZATION)
    order = list(freezable_layers(model))
    behind = norms_behind(model)
    assert set(order) - behind.keys() <= {"conv_head"}
    for share in ("1/3", "2/3"):
        frozen = set_trainable(model, phase_of("finetune", share), order, ProfitConfig(covers=COVERS[2]))
        norms = {key: module for key, module in model.named_modules() if isinstance(module, _BatchNorm)}
        stopped = {key for key, norm in norms.items() if not (norm.weight.requires_grad or norm.bias.requires_grad)}
        assert stopped == {behind[layer] for layer in frozen if layer in behind}


@pytest.mark.parametrize("covers", COVERS)
@pytest.mark.parametrize("quantizer", ["duq", "pact-sawb"])
@pytest.mark.parametrize(("kind", "frozen"), [("float", "0"), ("stabilize", "0"), ("sample", "0"), ("finetune", "2/3")])
def test_every_parameter_that_trains_is_in_one_group(kind: PhaseKind, frozen: str, quantizer: QuantizerName, covers: str):
    """Once, with its own rate and decay: ranges slowly, only weights and PACT's clip decay."""
    model = tiny(4, quantizer=quantizer)
    phase = phase_of(kind, frozen)
    set_trainable(model, phase, list(freezable_layers(model)), ProfitConfig(covers=covers))
    optimizer = build_optimizer(model, phase, RATES)
    weights, _, ranges = names(model)
    ids = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying = weights | {name for name in ranges if isinstance(model.get_submodule(name.rpartition(".")[0]), PACT)}
    grouped = [(ids[id(parameter)], group) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(name for name, _ in grouped) == sorted(trainable(model))
    base = 0.25 if kind == "float" else 0.5
    for name, group in grouped:
        assert group["base_lr"] == (base * 0.125 if name in ranges else base), name
        assert group["weight_decay"] == (0.0625 if name in decaying else 0), name
        assert (group["momentum"], group["nesterov"]) == (0.75, True)
    assert len(optimizer.param_groups) <= 3
    assert optimizer.defaults["lr"] == base


def test_the_float_phase_has_the_common_rate_unless_it_has_its_own():
    """No rate of its own: `lr`."""
    model = tiny(32)
    set_trainable(model, phase_of("float"), [], ProfitConfig())
    assert {group["base_lr"] for group in build_optimizer(model, phase_of("float"), ScheduleConfig(lr=0.5)).param_groups} == {0.5}


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("meta", None)])
def test_only_on_a_cpu_sgd_moves_all_parameters_in_one_call(device: str, fused: bool | None):
    """Where fp16 leaves an optimizer's first step out, torch's fused SGD goes on with a momentum that was never written."""
    model = tiny(32).to(device)
    assert build_optimizer(model, phase_of("float"), RATES).defaults["fused"] is fused


def test_every_range_is_a_quantizers():
    """What the names above rely on."""
    model = tiny(4)
    owned = {id(parameter) for module in model.modules() if isinstance(module, Quantizer) for parameter in module.parameters()}
    assert owned == {id(parameter) for name, parameter in model.named_parameters() if name in names(model)[2]}
