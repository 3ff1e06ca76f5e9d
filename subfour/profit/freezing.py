"""Which layers stop training, and which parameters train in a phase.

Source: PROFIT, arXiv:2008.04693: the weights of the most unstable third are frozen, then of the top two thirds.
A frozen weight is bit-identical from then on. Batch norm and ranges go on training (authors' code), unless
`ProfitConfig.covers` says otherwise.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import floor

from torch import nn
from torch.optim import SGD

from subfour.convert.batchnorm import batchnorm_after
from subfour.layers import quant_layers
from subfour.profit.phases import Phase
from subfour.profit.sections import ProfitConfig, ScheduleConfig
from subfour.quantizers import Quantizer
from subfour.seeding import derive_seed


def frozen_layers(freeze_order: Sequence[str], share: Fraction) -> list[str]:
    """Return the floor(share * L) most unstable of L layers.

    >>> frozen_layers(["a", "b", "c", "d"], Fraction(2, 3))
    ['a', 'b']
    """
    return list(freeze_order[: floor(share * len(freeze_order))])


def freeze_order(ranking: Sequence[str], method: str, seed: int) -> list[str]:
    """Return the order in which a method freezes layers.

    Args:
        ranking: the layers by AIWQ, the most unstable first: PROFIT's order.
        method: of `RunConfig`; "reversed-order" freezes the most stable first, "random-order" draws from the seed.
        seed: of the run.
    """
    order = list(ranking)
    if method == "reversed-order":
        order.reverse()
    elif method == "random-order":
        order.sort(key=lambda name: derive_seed(seed, "freeze order", name))
    return order


def set_trainable(model: nn.Module, phase: Phase, freeze_order: Sequence[str], config: ProfitConfig) -> list[str]:
    """Decide for every parameter whether it trains in this phase, and return the names of the frozen layers.

    Raises:
        RuntimeError: the phase freezes layers and no order was sampled.
    """
    if phase.frozen and not freeze_order:
        raise RuntimeError(f"phase {phase.widths} freezes {phase.frozen} of the layers, but no phase before it sampled AIWQ")
    layers = quant_layers(model)
    model.requires_grad_(True)
    for quantizer in _quantizers(model):
        # Ranges of a float quantizer do nothing: were they trained, momentum would move them before their width begins.
        quantizer.requires_grad_(quantizer.enabled)
    if phase.kind in ("stabilize", "snap"):
        for layer in layers.values():
            layer.weight.requires_grad_(False)
    frozen = frozen_layers(freeze_order, phase.frozen)
    norms = batchnorm_after(model) if config.covers == "weights+ranges+batchnorm" else {}
    for name in frozen:
        layers[name].weight.requires_grad_(False)
        if config.covers != "weights":
            layers[name].weight_quantizer.requires_grad_(False)
            layers[name].activation_quantizer.requires_grad_(False)
        if name in norms:
            norms[name].requires_grad_(False)
    return frozen


def base_rate(phase: Phase, config: ScheduleConfig) -> tuple[float, str]:
    """Return the base learning rate of a phase, and the option that sets it."""
    if phase.kind == "float" and config.float_lr is not None:
        return config.float_lr, "schedule.float-lr"
    if phase.kind == "snap":
        return config.snap_lr, "schedule.snap-lr"
    return config.lr, "schedule.lr"


def build_optimizer(model: nn.Module, phase: Phase, config: ScheduleConfig) -> SGD:
    """Return SGD over what trains, in three groups: weights, batch norm and biases, ranges.

    Only weights decay (and PACT's clip, as its paper asks); ranges have `range_lr_scale` times the rate. Each group keeps
    its `base_lr`, which the schedule multiplies.
    """
    weights = {id(layer.weight) for layer in quant_layers(model).values()}
    ranges: dict[int, bool] = {
        id(parameter): quantizer.decays_ranges for quantizer in _quantizers(model) for parameter in quantizer.parameters()
    }
    rate, _ = base_rate(phase, config)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in ranges:
            key = (rate * config.range_lr_scale, config.weight_decay if ranges[id(parameter)] else 0.0)
        else:
            key = (rate, config.weight_decay if id(parameter) in weights else 0.0)
        groups.setdefault(key, []).append(parameter)
    return SGD(
        [{"params": parameters, "base_lr": lr, "weight_decay": decay} for (lr, decay), parameters in groups.items()],
        lr=rate,
        momentum=config.momentum,
        nesterov=True,
        fused=_on_cpu(model) or None,
    )


def _on_cpu(model: nn.Module) -> bool:
    """Return whether SGD may move all parameters in one call: a quantized network has hundreds with a single number.

    Not on a GPU: where fp16's loss scale leaves out an optimizer's first step, torch's fused SGD goes on with a momentum that
    nothing has been written to.
    """
    return all(parameter.device.type == "cpu" for parameter in model.parameters())


def _quantizers(model: nn.Module) -> list[Quantizer]:
    return [module for module in model.modules() if isinstance(module, Quantizer)]


def weight_rate(optimizer: SGD) -> float:
    """Return the present learning rate of weights and batch norm, not that of ranges."""
    rate: float = next(group["lr"] for group in optimizer.param_groups if group["base_lr"] == optimizer.defaults["lr"])
    return rate
