"""What each layer of a converted network computes on one image, and what waits in memory meanwhile.

The graph that conversion reads is walked once with meta tensors, which have a shape and no values, so any resolution is free.
A tensor waits at a layer when it was made before and is used after it: a skip path, or what a squeeze-and-excitation gate
will multiply. Batch norm, activations and reshapes happen in place, so what counts is the tensors at layer boundaries.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.convert.calibrate import set_bits
from subfour.convert.graph import module_of, trace
from subfour.layers import LayerKind, QuantConv2d, QuantLinear
from subfour.ops import FLOAT_BITS


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWork:
    """One layer on one image."""

    name: str
    """Exact module name."""
    kind: LayerKind
    weights: int
    biases: int
    fan_in: int
    """Products per output value: input channels per group times kernel area."""
    positions: int
    """Places of the output map at which every weight is used once; 1 for a linear layer."""
    inputs: int
    """Elements that enter."""
    outputs: int
    """Elements that leave."""
    waiting: int
    """Elements of other tensors that are used after this layer."""
    input_waits: bool
    """Whether the input itself is used after this layer."""
    output_waits: bool
    """Whether the output is read by anything but layers: by a residual sum or a product."""

    @property
    def macs(self) -> int:
        """Multiplications with an addition each, padded positions counted in full."""
        return self.weights * self.positions


@dataclass(frozen=True, slots=True)
class Workload:
    """A network on one image."""

    layers: tuple[LayerWork, ...]
    """In the order in which they run."""
    batchnorm_channels: int
    """Channels of all batch norms together."""


def measure_workload(model: nn.Module, image_size: int) -> Workload:
    """Return what a converted model computes on one image; the model is not changed.

    Args:
        model: converted; at any widths, on any device.
        image_size: side of the square image, pixels.

    Raises:
        ValueError: the image is too small for the network.
    """
    network = copy.deepcopy(model).to("meta").eval()
    set_bits(network, FLOAT_BITS, FLOAT_BITS)
    graph = trace(network)
    sizes = _Sizes(fx.GraphModule(network, graph))
    try:
        sizes.run(torch.empty(1, 3, image_size, image_size, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"resolution: the network cannot compute on {image_size} pixels ({_first_line(error)})") from error
    nodes = [node for node in graph.nodes if node.name in sizes.elements]
    last_use = _last_uses(graph)
    order = {node: position for position, node in enumerate(graph.nodes)}
    works = []
    for node in nodes:
        layer = module_of(network, node)
        if not isinstance(layer, QuantConv2d | QuantLinear):
            continue
        entering, now = node.all_input_nodes[0], order[node]
        waiting = [other for other in nodes if order[other] < now < last_use[other] and other is not entering]
        outputs, channels = sizes.elements[node.name], layer.weight.shape[0]
        works.append(
            LayerWork(
                name=node.target,
                kind=layer.kind,
                weights=layer.weight.numel(),
                biases=0 if layer.bias is None else layer.bias.numel(),
                fan_in=layer.weight.numel() // channels,
                positions=outputs // channels,
                inputs=sizes.elements[entering.name],
                outputs=outputs,
                waiting=sum(sizes.elements[other.name] for other in waiting),
                input_waits=last_use[entering] > now,
                output_waits=_meets_another(node, network, sizes.elements),
            )
        )
    return Workload(tuple(works), sum(norm.num_features for norm in network.modules() if isinstance(norm, _BatchNorm)))


class _Sizes(fx.Interpreter):
    """Runs a graph and keeps the number of elements of each tensor it makes."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.elements: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and keep its size."""
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op not in ("get_attr", "output"):
            self.elements[n.name] = result.numel()
        return result


def _last_uses(graph: fx.Graph) -> dict[fx.Node, int]:
    """Return the position of each node's last reader; its own without one."""
    last: dict[fx.Node, int] = {}
    for position, node in enumerate(graph.nodes):
        last[node] = position
        for read in node.all_input_nodes:
            last[read] = position
    return last


def _meets_another(node: fx.Node, network: nn.Module, elements: Mapping[str, int]) -> bool:
    """Return whether a node's values reach an operation on two tensors before they reach layers only."""
    for user in node.users:
        is_layer = isinstance(module_of(network, user), QuantConv2d | QuantLinear)
        if is_layer or user.name not in elements:
            continue
        if sum(read.name in elements for read in user.all_input_nodes) > 1 or _meets_another(user, network, elements):
            return True
    return False


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
