"""From a converted network to its program: the network's own graph, folded.

The network is traced as conversion traces it (`convert/graph.py`); every quantized layer becomes a `Quantize` of what enters it
and a `Layer` with the batch norm behind it folded in. What does nothing in evaluation mode (dropout) is left out.
"""

from dataclasses import dataclass, field
from typing import cast, get_args

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.convert.graph import (
    GATES,
    IDENTITIES,
    PRODUCTS,
    RESHAPES,
    SUMS,
    activation_in,
    module_of,
    only_user,
    operation_of,
    pools_globally,
    trace,
)
from subfour.convert.skips import skip_quantizers
from subfour.data.preprocess import Preprocessing, normalize
from subfour.integer.fold import fold
from subfour.integer.program import (
    IMAGE,
    Activate,
    Add,
    Flatten,
    Function,
    Layer,
    Lookup,
    Multiply,
    Operation,
    Pool,
    Program,
    Quantize,
)
from subfour.layers import QuantConv2d, QuantLinear
from subfour.quantizers import ImageQuantizer

ACTIVATIONS: dict[str, Function] = {name: name for name in get_args(Function)}


def build_program(
    model: nn.Module, preprocessing: Preprocessing, *, dtype: torch.dtype = torch.float32, graph: fx.Graph | None = None
) -> Program:
    """Return the program of a converted network at its present widths, differentiable in its parameters.

    Args:
        model: converted and calibrated, below 32 bits; it is read only.
        preprocessing: of its images.
        dtype: of the folded constants; float64 for export, the network's own for training.
        graph: of this model, from `trace`, where it is at hand; None: it is traced.

    Raises:
        ValueError: the network has something that no program can say; the message names it.
    """
    if skips := skip_quantizers(model):
        raise ValueError(f"{next(iter(skips))}: its skip path is quantized, which no program can say; train with --skip-bits 32")
    builder = _Builder(model, preprocessing, dtype)
    for node in (graph or trace(model)).nodes:
        builder.take(node)
    return Program(operations=tuple(builder.operations))


@dataclass
class _Builder:
    """Turns the nodes of a graph into operations, one by one."""

    model: nn.Module
    preprocessing: Preprocessing
    dtype: torch.dtype
    operations: list[Operation] = field(default_factory=list)
    names: dict[fx.Node, str] = field(default_factory=dict)
    """The value that a node gives."""
    folded: set[fx.Node] = field(default_factory=set)
    """Batch norms that are part of a layer."""
    pooled: set[str] = field(default_factory=set)
    """Values of one position, [N, C, 1, 1] or [N, C]: reshaping them changes no number and needs no operation."""
    flat: set[str] = field(default_factory=set)
    """Those that are [N, C]: what linear layers give."""

    def take(self, node: fx.Node) -> None:
        """Add what a node computes."""
        if node.op == "placeholder":
            self.names[node] = IMAGE
            return
        if node.op == "output":
            self._end(node)
            return
        module = module_of(self.model, node)
        operation = operation_of(node, module)
        if isinstance(module, QuantConv2d | QuantLinear):
            self._layer(node, module)
        elif operation == "batchnorm":
            self._norm(node, cast(_BatchNorm, module))
        elif operation in ACTIVATIONS:
            self._activate(node, node.name, ACTIVATIONS[operation])
        elif operation in IDENTITIES or (operation in RESHAPES and self._input(node) in self.pooled):
            self.names[node] = self._input(node)
        elif pools_globally(operation, node, module):
            self._add(node, Pool(name=node.name, inputs=(self._input(node),)))
            self.pooled.add(node.name)
        elif operation in SUMS and len(node.all_input_nodes) == 2:
            first, second = self._inputs(node)
            self._add(node, Add(name=node.name, inputs=(first, second)))
        elif operation in PRODUCTS and len(node.all_input_nodes) == 2:
            self._multiply(node)
        elif self._gives_shape(operation, node):
            pass  # of no use but to a reshape
        else:
            raise ValueError(f"{node.name}: {operation} has no integer form; it cannot be exported")

    def _end(self, node: fx.Node) -> None:
        """Check that the network returns what it computes last, and nothing else: a program's output is its last value."""
        returned = node.args[0]
        if not isinstance(returned, fx.Node) or self.names.get(returned) != self.operations[-1].name:
            raise ValueError(
                f"the network returns {returned}, and not {self.operations[-1].name} alone, which it computes last; it cannot be "
                "exported"
            )

    def _layer(self, node: fx.Node, layer: QuantConv2d | QuantLinear) -> None:
        name = str(node.target)
        following = only_user(node)
        norm = module_of(self.model, following)
        if following is not None and isinstance(norm, _BatchNorm):
            self.folded.add(following)
        else:
            norm = None
        try:
            folded = fold(layer, norm, dtype=self.dtype)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        source = self._input(node)
        codes = self._quantize(f"{name}.input", source, layer)
        if isinstance(layer, QuantLinear) and source not in self.flat:
            self.operations.append(Flatten(name=f"{name}.flat", inputs=(codes,)))
            codes = f"{name}.flat"
        window = (
            {
                "stride": layer.stride,
                "padding": layer.padding,
                "dilation": layer.dilation,
                "groups": layer.groups,
            }
            if isinstance(layer, QuantConv2d)
            else {}
        )
        self._add(
            node,
            Layer(
                name=name,
                inputs=(codes,),
                codes=folded.codes,
                multiplier=folded.multiplier,
                addend=folded.addend,
                weight_bits=layer.weight_quantizer.bits,
                **window,  # type: ignore[arg-type]
            ),
        )
        self._keep_shape(source, name)
        if isinstance(layer, QuantLinear):
            self.flat.add(name)

    def _quantize(self, name: str, source: str, layer: QuantConv2d | QuantLinear) -> str:
        """Add what turns a layer's input into codes, and return the codes' name."""
        quantizer = layer.activation_quantizer
        params = quantizer.params()
        if isinstance(quantizer, ImageQuantizer):
            pixels = torch.arange(256, dtype=torch.uint8, device=params.scale.device).expand(1, 3, 1, 256)
            table = quantizer.codes(normalize(pixels, self.preprocessing))[0, :, 0].long()
            self.operations.append(Lookup(name=name, inputs=(source,), table=table, qmin=params.lowest, qmax=params.highest))
        else:
            self.operations.append(
                Quantize(
                    name=name,
                    inputs=(source,),
                    step=params.pre_scale.to(self.dtype),
                    offset=params.offset if isinstance(params.offset, float) else params.offset.to(self.dtype),
                    qmin=params.lowest,
                    qmax=params.highest,
                    bits=quantizer.bits,
                )
            )
        return name

    def _norm(self, node: fx.Node, norm: _BatchNorm) -> None:
        """Hand on the layer that a batch norm is folded into; timm's also has an activation."""
        if node not in self.folded:
            raise ValueError(f"{node.target}: this batch norm does not follow a layer of its own; it cannot be folded")
        act = activation_in(norm)
        if act == "identity":
            self.names[node] = self._input(node)
        elif act in ACTIVATIONS:
            self._activate(node, f"{node.name}.act", ACTIVATIONS[act])
        else:
            raise ValueError(f"{node.target}: {act} has no integer form; it cannot be exported")

    def _activate(self, node: fx.Node, name: str, function: Function) -> None:
        source = self._input(node)
        self._add(node, Activate(name=name, inputs=(source,), function=function))
        self._keep_shape(source, name)

    def _keep_shape(self, source: str, name: str) -> None:
        """Note that a value has as many positions as the one it comes from."""
        for values in (self.pooled, self.flat):
            if source in values:
                values.add(name)

    def _multiply(self, node: fx.Node) -> None:
        first, second = self._inputs(node)
        gates = [name for name in (first, second) if self._is_gate(name)]
        if len(gates) != 1:
            raise ValueError(f"{node.name}: only the product of a tensor and a squeeze-and-excitation gate can be exported")
        if gates[0] in self.flat:
            raise ValueError(f"{node.name}: its gate comes from a linear layer, which cannot be exported; use 1x1 convolutions")
        values = second if gates[0] == first else first
        self._add(node, Multiply(name=node.name, inputs=(values, gates[0])))

    def _gives_shape(self, operation: str, node: fx.Node) -> bool:
        """Return whether a node reads a size, as in `x.view(x.size(0), -1)`, and not values."""
        if operation == "getitem":
            return node.args[0] not in self.names
        return operation == "size" or (operation == "getattr" and "shape" in node.args)

    def _is_gate(self, name: str) -> bool:
        operation = next((operation for operation in self.operations if operation.name == name), None)
        return isinstance(operation, Activate) and operation.function in GATES

    def _add(self, node: fx.Node, operation: Operation) -> None:
        self.operations.append(operation)
        self.names[node] = operation.name

    def _inputs(self, node: fx.Node) -> list[str]:
        return [self.names[source] for source in node.all_input_nodes if source in self.names]

    def _input(self, node: fx.Node) -> str:
        return self._inputs(node)[0]
