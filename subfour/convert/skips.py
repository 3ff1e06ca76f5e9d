"""Quantized skip paths: what the precision highway (supplement of PROFIT, Sec. 5) is compared with.

A skip path starts at the input of a residual block, where its first layer reads too. There a quantizer is put, of the same
method and for the same values as that layer's: the block's input is stored in `skip_bits`, the skip carries it to the sum, and
the branch quantizes it further. At 32 bits, where nothing is put, the skip stays in high precision.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, fx, nn

from subfour.convert.graph import SUMS, module_of, operation_of, scope_of, trace
from subfour.quantizers import Domain, Quantizer

NAME = "skip_quantizer"
"""Of the submodule that a block gets."""


class SkipQuantizer(nn.Module):
    """What quantizes the input of a residual block."""

    def __init__(self, quantizer: Quantizer, bits: int) -> None:
        """Take a quantizer; it is float until `set_skip_bits`.

        Args:
            quantizer: for the values that the skip carries.
            bits: its width, at the least: wider while the activations are.
        """
        super().__init__()
        self.quantizer = quantizer
        self.bits = bits

    def forward(self, values: Tensor) -> Tensor:
        """Return the values as the skip carries them."""
        carried: Tensor = self.quantizer(values)
        return carried


def find_skips(model: nn.Module) -> dict[str, str]:
    """Return, for each residual block of a float network, the name of a layer that reads what its skip carries.

    Raises:
        ValueError: there is no skip, one of them does not begin at the entrance of a module, or the network cannot be traced.
    """
    modules = dict(model.named_modules())
    skips = {}
    for node in trace(model).nodes:
        if operation_of(node, module_of(model, node)) not in SUMS or len(node.all_input_nodes) < 2:
            continue
        block = scope_of(node)
        outside = [operand for operand in node.all_input_nodes if not f"{scope_of(operand)}.".startswith(f"{block}.")]
        readers = [reader for operand in outside for reader in _layers_reading(modules, operand)]
        at_image = any(operand.op == "placeholder" for operand in outside)
        if block not in modules or len(outside) != 1 or not readers or at_image:
            raise ValueError(f"skip_bits: the sum in {block} is not that of a residual block's input and its branch; use 32")
        skips[block] = readers[0]
    if not skips:
        raise ValueError("skip_bits: the network has no skip paths; use 32")
    return skips


def _layers_reading(modules: Mapping[str, nn.Module], node: fx.Node) -> list[str]:
    """Return the convolutions that read a node."""
    targets = [str(user.target) for user in node.users if user.op == "call_module"]
    return [target for target in targets if isinstance(modules[target], nn.Conv2d)]


def quantize_skips(
    model: nn.Module,
    readers: Mapping[str, str],
    domains: Mapping[str, Domain],
    make: Callable[[Domain], Quantizer],
    bits: int,
) -> None:
    """Put a quantizer at the entrance of each residual block, in place.

    Args:
        model: a converted network.
        readers: from `find_skips`, of the float network.
        domains: of the inputs of its layers.
        make: the method's activation quantizer.
        bits: 2..8.
    """
    for name, reader in readers.items():
        block = model.get_submodule(name)
        device = next(model.get_submodule(reader).parameters()).device
        block.add_module(NAME, SkipQuantizer(make(domains[reader]), bits).to(device))
        block.register_forward_pre_hook(_quantize_input)


def skip_quantizers(model: nn.Module) -> dict[str, tuple[nn.Module, SkipQuantizer]]:
    """Return every block with a quantized skip, by name, and what quantizes it."""
    found = {name.removesuffix(f".{NAME}"): skip for name, skip in model.named_modules() if isinstance(skip, SkipQuantizer)}
    return {name: (model.get_submodule(name), skip) for name, skip in found.items()}


def set_skip_bits(model: nn.Module, activation_bits: int) -> None:
    """Set the widths of quantized skips: never below their own, float with float activations."""
    for _, skip in skip_quantizers(model).values():
        skip.quantizer.bits = max(activation_bits, skip.bits)


def _quantize_input(block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (block.get_submodule(NAME)(inputs[0]), *inputs[1:])
