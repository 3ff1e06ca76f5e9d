"""Where the folded engine applies: batch norm -> activation -> quantizer -> layer, and nothing else reads in between.

Read from the network's graph (`convert/graph.py`), by exact name. Identities in between are passed over. A value that a skip,
a pool or a gate reads too must exist as it is: there the layer turns values into codes itself. A product with a gate that only a
layer reads gives its codes as well (`gates.py`).
"""

import operator
from dataclasses import dataclass
from typing import Literal, TypeGuard, get_args

from torch import Tensor, fx, nn

from subfour.convert.graph import GATES, activation_in, is_foldable, only_user, operation_of, trace
from subfour.convert.skips import skip_quantizers
from subfour.layers import QuantConv2d, QuantLinear
from subfour.quantizers import DuQ

Activation = Literal["identity", "relu", "relu6", "hardswish"]
"""What stands between batch norm and quantizer."""

ACTIVATIONS: dict[str, Activation] = {name: name for name in get_args(Activation)}


@dataclass(frozen=True, slots=True)
class Chain:
    """A batch norm and an activation that only one layer reads."""

    norm: str
    """Exact name of the batch norm; its module holds the activation too in timm."""
    activation: Activation
    activation_module: str | None
    """Exact name of the activation where it is a module of its own."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A layer that computes on codes."""

    before: Chain | None
    """What gives its codes; None: it makes them itself of what enters it."""
    norm_after: str | None
    """Exact name of the batch norm that alone reads its output."""
    gate: str | None = None
    """Exact name of the last module of the gate whose product with other values gives its codes."""


def find_folds(model: nn.Module) -> dict[str, Fold]:
    """Return every layer of a converted network that can compute on codes at its present widths, by exact name."""
    if skip_quantizers(model):
        return {}
    graph = trace(model)
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    modules = {node: model.get_submodule(str(node.target)) for node in graph.nodes if called.count(node.target) == 1}
    folds = {}
    for node, layer in modules.items():
        if isinstance(layer, QuantConv2d | QuantLinear) and computes_on_codes(layer):
            reader = only_user(node)
            norm_after = str(reader.target) if reader and isinstance(modules.get(reader), nn.BatchNorm2d) else None
            folds[str(node.target)] = Fold(_chain_before(node, modules), norm_after, _gate_before(node, modules))
    return folds


def computes_on_codes(layer: QuantConv2d | QuantLinear) -> bool:
    """Return whether the input's scale can go into the weight, and the padding is code 0."""
    quantizer = layer.activation_quantizer
    if layer.fused_batchnorm or not (isinstance(quantizer, DuQ) and quantizer.enabled):
        return False
    if isinstance(quantizer.params().offset, Tensor):  # learned: codes would not carry its gradient
        return False
    return isinstance(layer, QuantLinear) or not any(layer.padding) or layer.border == quantizer.offset


def _chain_before(layer: fx.Node, modules: dict[fx.Node, nn.Module]) -> Chain | None:
    """Return the chain that feeds a layer, if one does and nothing else reads its values."""
    name: str | None = None
    activation: Activation = "identity"
    source = layer.all_input_nodes[0]
    while len(source.users) == 1 and (module := modules.get(source)) is not None:
        operation = operation_of(source, module)
        if operation == "batchnorm":
            inside = activation_in(module) if _folds(module) else None
            if inside not in ACTIVATIONS or (inside != "identity" and name is not None):
                return None
            return Chain(str(source.target), ACTIVATIONS[inside] if name is None else activation, name)
        if operation not in ACTIVATIONS or (operation != "identity" and name is not None):
            return None
        if operation != "identity":
            activation, name = ACTIVATIONS[operation], str(source.target)
        source = source.all_input_nodes[0]
    return None


def _gate_before(layer: fx.Node, modules: dict[fx.Node, nn.Module]) -> str | None:
    """Return the gate of the product that feeds a layer, if one does and nothing else reads either."""
    product = layer.all_input_nodes[0]
    if product.target is not operator.mul or len(product.users) > 1:
        return None
    for factor in product.all_input_nodes:
        module = modules.get(factor)
        if module is not None and operation_of(factor, module) in GATES and len(factor.users) == 1:
            before = modules.get(factor.all_input_nodes[0])
            if isinstance(before, QuantConv2d) and before.kind == "se":
                return str(factor.target)
    return None


def _folds(norm: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Return whether a batch norm has scale, shift and running statistics, and computes as usual (SyncBatchNorm does not)."""
    return isinstance(norm, nn.BatchNorm2d) and is_foldable(norm)
