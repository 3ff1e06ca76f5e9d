"""What feeds each convolution and linear layer of a float network, read from its torch.fx graph.

The graph is walked once from the image to the logits. Every node gets a `_Feed`: the values it gives, where they come from in
words, and the layers passed since the last global pool, by which squeeze-and-excitation is known whatever its modules are:

    global pool -> layers -> sigmoid or hard-sigmoid -> multiplies a tensor

The trace is analysed and thrown away, never trained: torch.fx bakes the mode of a traced batch norm into the graph. Operations
are known by their names without case and underscores, so that nn.ReLU6, F.relu6 and timm's own modules (BatchNormAct2d is
batch norm, dropout and activation in one) are understood without importing timm. An operation not known gives unknown values,
and a layer fed by those is an error, never silently float.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeGuard

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.layers import LayerKind
from subfour.quantizers import Domain

InputDomain = Domain | Literal["image"]
"""Values that enter a layer: the domain of a quantizer, or normalised pixels."""

OutputDomain = InputDomain | Literal["gate"]
"""Values that a node gives: as above, or a factor in 0..1."""

OWN_RANGE: dict[str, OutputDomain] = {
    "relu": "unsigned",
    "relu6": "unsigned",
    "hardswish": "hswish",
    "batchnorm": "signed",
    "sigmoid": "gate",
    "hardsigmoid": "gate",
}
"""Operations whose output has one domain whatever enters."""

GLOBAL_POOLS: dict[str, set[tuple[int, ...]]] = {"mean": {(2, 3), (-2, -1)}, "adaptiveavgpool2d": {(1,), (1, 1)}}
"""Operation -> the dimensions or output sizes with which it pools the whole map."""

IDENTITIES = {"dropout", "dropout2d", "droppath", "stochasticdepth", "identity", "contiguous"}
"""Operations that hand on what enters, in evaluation mode."""

RESHAPES = {"flatten", "view", "reshape", "squeeze", "unsqueeze"}

RANGE_KEEPING = {*GLOBAL_POOLS, "avgpool2d", "maxpool2d", *IDENTITIES, *RESHAPES}
"""Operations whose output has the domain of what enters first."""

ACTIVATIONS = {name for name in OWN_RANGE if name != "batchnorm"}

GATES = {name for name, domain in OWN_RANGE.items() if domain == "gate"}
"""Operations that a gate ends with."""

SUMS = {"add", "iadd"}

PRODUCTS = {"mul", "imul"}

KNOWN = {*OWN_RANGE, *RANGE_KEEPING}

SUPPORTED = (
    "the image, ReLU, ReLU6, h-swish, batch norm, convolution and linear layers, residual sums, tensors times a "
    "squeeze-and-excitation gate, and any of these pooled, reshaped or with dropout"
)

PLAIN_FORWARDS = {"timm.layers.linear.Linear"}
"""Subclasses that override forward and compute what nn.Conv2d or nn.Linear computes."""


@dataclass(frozen=True, slots=True)
class Site:
    """A layer to quantize and what feeds it."""

    name: str
    """Exact module name."""
    layer: nn.Conv2d | nn.Linear
    kind: LayerKind
    domain: InputDomain
    source: str
    """What feeds the layer, in words."""


def find_sites(model: nn.Module) -> list[Site]:
    """Return every convolution and linear layer with what feeds it, in the model's own order.

    >>> sites = find_sites(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 8, 3, groups=8)))
    >>> [(site.kind, site.domain, site.source) for site in sites]
    [('stem', 'image', 'the image'), ('depthwise', 'hswish', 'Hardswish 1')]

    Args:
        model: a float network that takes images; it is read only.

    Raises:
        ValueError: the model cannot be traced, or a layer cannot be placed; the message names it.
    """
    layers = _stock_layers(model)
    inputs, gating = _walk(model)
    sites = []
    for name, layer in layers.items():
        if name not in inputs:
            raise ValueError(f"{name}: the model never calls it, so nothing is known of its input; remove it")
        domain, source = inputs[name].domain, inputs[name].source
        if domain is None or domain == "gate":
            raise ValueError(f"{name}: it is fed by {source}, for which there is no quantizer; supported are {SUPPORTED}")
        sites.append(Site(name, layer, "se" if name in gating else _kind(layer, domain), domain, source))
    return sites


def _stock_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the layers to quantize by exact name, after a check that they are all there is and compute as usual."""
    modules = dict(model.named_modules())
    layers = {name: module for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear)}
    for name, layer in layers.items():
        kind, stock = type(layer), nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
        if kind.forward is not stock.forward and f"{kind.__module__}.{kind.__qualname__}" not in PLAIN_FORWARDS:
            raise ValueError(
                f"{name}: {kind.__name__} computes in its own way, which the quantized layer would lose; "
                f"use a network with plain nn.{stock.__name__} layers"
            )
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        if parameter.ndim > 1 and owner not in layers:
            what = type(modules[owner]).__name__
            raise ValueError(f"{name}: {what} would stay float; only nn.Conv2d and nn.Linear can be quantized")
    return layers


def _kind(layer: nn.Conv2d | nn.Linear, domain: InputDomain) -> LayerKind:
    if domain == "image":
        return "stem"
    if isinstance(layer, nn.Linear):
        return "linear"
    if layer.groups == layer.in_channels > 1:
        return "depthwise"
    return "pointwise" if layer.kernel_size == (1, 1) and layer.groups == 1 else "conv"


@dataclass(frozen=True, slots=True)
class _Feed:
    """What a node of the graph gives."""

    domain: OutputDomain | None
    """None: unknown."""
    source: str
    branch: tuple[str, ...] | None = None
    """The layers passed since a global pool; None without one."""


def _walk(model: nn.Module) -> tuple[dict[str, _Feed], set[str]]:
    """Return the feed of every layer that is called, by name, and the names of those in squeeze-and-excitation."""
    inputs: dict[str, _Feed] = {}
    gating: set[str] = set()
    feeds: dict[fx.Node, _Feed] = {}
    for node in trace(model).nodes:
        module = module_of(model, node)
        operands = [feeds[operand] for operand in node.all_input_nodes]
        if isinstance(module, nn.Conv2d | nn.Linear):
            if node.target in inputs:
                raise ValueError(f"{node.target}: the model calls it twice, but its quantizer is for one input; use two layers")
            inputs[node.target] = operands[0]
            branch = None if operands[0].branch is None else (*operands[0].branch, node.target)
            feeds[node] = _Feed("signed", _label(node, module), branch)
        elif operation_of(node, module) in PRODUCTS and (gate := _gate(operands)):
            gating.update(gate.branch or ())
            gated = next(operand for operand in operands if operand is not gate)
            feeds[node] = replace(gated, source=f"{gated.source}, gated")
        else:
            feeds[node] = _feed(node, module, operands)
    return inputs, gating


def _gate(operands: Sequence[_Feed]) -> _Feed | None:
    """Return the factor of a product that is a squeeze-and-excitation gate, if one is."""
    gates = [operand for operand in operands if operand.domain == "gate" and operand.branch]
    return gates[0] if len(operands) == 2 and len(gates) == 1 else None


def _feed(node: fx.Node, module: nn.Module | None, operands: Sequence[_Feed]) -> _Feed:
    """Return what a node gives that is neither a layer nor a gated tensor."""
    operation, label = operation_of(node, module), _label(node, module)
    if isinstance(module, _BatchNorm) and (inside := activation_in(module)) != "identity":
        operation, label = inside, f"{label} ({type(module.act).__name__})"
    if node.op == "placeholder":
        return _Feed("image", "the image")
    if operation in OWN_RANGE:
        return _Feed(OWN_RANGE[operation], label, operands[0].branch)
    if operation in RANGE_KEEPING:
        pooled = replace(operands[0], source=f"{operands[0].source}, pooled", branch=())
        return pooled if pools_globally(operation, node, module) else operands[0]
    if operation in SUMS and not node.kwargs and all(isinstance(argument, fx.Node) for argument in node.args):
        domains = {operand.domain for operand in operands}
        if domains <= {"unsigned", "hswish", "signed"}:
            return _Feed("unsigned" if domains == {"unsigned"} else "signed", f"residual sum in {scope_of(node)}")
    return _Feed(None, label)


def module_of(model: nn.Module, node: fx.Node | None) -> nn.Module | None:
    """Return the module that a node calls; None where it calls none, or there is no node."""
    return model.get_submodule(str(node.target)) if node is not None and node.op == "call_module" else None


def only_user(node: fx.Node | None) -> fx.Node | None:
    """Return the node that alone reads what a node gives; None where several do, none does, or there is no node."""
    return next(iter(node.users)) if node is not None and len(node.users) == 1 else None


def pools_globally(operation: str, node: fx.Node, module: nn.Module | None) -> bool:
    """Return whether a node is a global average pool."""
    if operation not in GLOBAL_POOLS:
        return False
    extent: object
    if module is not None:
        extent = getattr(module, "output_size", None)
    else:
        extent = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("output_size"))
    return (tuple(extent) if isinstance(extent, Sequence) else (extent,)) in GLOBAL_POOLS[operation]


class _Tracer(fx.Tracer):
    """Looks into neither the layers to quantize nor any module whose operation is known."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module becomes one node."""
        known = isinstance(m, nn.Conv2d | nn.Linear) or module_operation(m) in KNOWN
        return known or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.Graph:
    """Return the graph of a float or converted network; every module whose operation is known is one node.

    Raises:
        ValueError: torch.fx cannot follow the network's code.
    """
    try:
        return _Tracer().trace(model)
    except Exception as error:  # a model's own code runs here and may raise anything
        raise ValueError(f"model: torch.fx cannot trace {type(model).__name__}, so it cannot be converted: {error}") from error


def is_foldable(module: nn.Module | None) -> TypeGuard[_BatchNorm]:
    """Return whether a layer can take in the batch norm behind it: with a learned scale and running statistics."""
    return isinstance(module, _BatchNorm) and module.affine and module.track_running_stats


def activation_in(norm: _BatchNorm) -> str:
    """Return the operation that follows inside a batch norm, as in timm's BatchNormAct2d; "identity" where none does."""
    act = getattr(norm, "act", None)
    return "identity" if act is None else module_operation(act)


def operation_of(node: fx.Node, module: nn.Module | None) -> str:
    """Return the name of a node's operation without case and underscores."""
    if module is not None:
        return module_operation(module)
    return _name(node.target if isinstance(node.target, str) else node.target.__name__)


def module_operation(module: nn.Module) -> str:
    """Return the first known operation among a module's class and its bases, or the class.

    An activation with a forward of its own is not its base: it may give other values.
    """
    kind = type(module)
    for base in kind.__mro__:
        name = _name(base.__name__)
        if name in KNOWN and (name not in ACTIVATIONS or getattr(base, "forward", None) is kind.forward):
            return name
    return _name(kind.__name__)


def _name(identifier: str) -> str:
    return identifier.replace("_", "").lower()


def _label(node: fx.Node, module: nn.Module | None) -> str:
    """Return a node in words, for tables and messages."""
    if module is not None:
        return f"{type(module).__name__} {node.target}"
    if isinstance(node.target, str):
        return f"{node.target} in {scope_of(node)}"
    return f"{node.target.__name__} in {scope_of(node)}"


def scope_of(node: fx.Node) -> str:
    """Return the name of the module whose forward makes a node."""
    scopes = [*node.meta.get("nn_module_stack", {})]
    return scopes[-1] if scopes else "the model"
