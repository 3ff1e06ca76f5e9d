"""Which values of a program get a code of their own when it is snapped, and which lie on skip paths."""

from torch import Tensor

from subfour.integer.program import Activate, Add, Function, Layer, Multiply, Operation, Pool, Program, Quantize, readers

LINEAR: tuple[Function | None, ...] = (None, "relu", "relu6", "hardsigmoid")
"""Nonlinearities that a quantizer's clip can say."""


def check_structure(program: Program) -> None:
    """Raise unless a program can be snapped; of its constants only where codes begin is looked at.

    Raises:
        ValueError: it combines values in a way that has no integer form; the message names it.
    """
    Structure(program)


class Structure:
    """Which values of a program get a code of their own, and which lie on skip paths."""

    def __init__(self, program: Program) -> None:
        """Read a program; of its constants only where codes begin is looked at.

        Raises:
            ValueError: it combines values in a way that has no integer form; the message names it.
        """
        self.operations = {operation.name: operation for operation in program.operations}
        self.coded: set[str] = set()
        """Outputs of nonlinearities that are pooled, gated, or begin a skip."""
        self.gates: set[str] = set()
        """Outputs of nonlinearities that gate."""
        self.chains: list[set[str]] = []
        """Operands and results of sums that hang together."""
        for operation in program.operations:
            if isinstance(operation, Pool | Multiply):
                self._code(operation.inputs[0], operation)
            if isinstance(operation, Multiply):
                self.gates.add(operation.inputs[1])
            if isinstance(operation, Add):
                self._chain({operation.name, *operation.inputs})
                for name in operation.inputs:
                    if not isinstance(self.operations[name], Layer | Add):
                        self._code(name, operation)

        for operation in program.operations:
            if isinstance(operation, Quantize):
                self._check_beginning(operation)
            curved = {function not in LINEAR for _, function in readers(program, operation.name)}
            if isinstance(operation, Layer | Add) and len(curved) > 1:
                raise ValueError(f"{operation.name}: it feeds quantizers with and without h-swish between; it cannot be snapped")
            if operation.name in self.skips and True in curved:
                raise ValueError(f"{operation.name}: a sum, or a part of one, enters h-swish; it cannot be snapped")

    def _check_beginning(self, quantize: Quantize) -> None:
        """Raise where a quantizer's clip cannot take ReLU's place, because its codes do not begin at 0."""
        before = self.operations[quantize.inputs[0]]
        offset = float(quantize.offset.detach()) if isinstance(quantize.offset, Tensor) else quantize.offset
        if isinstance(before, Activate) and before.function in ("relu", "relu6") and (offset != 0 or quantize.qmin != 0):
            raise ValueError(f"{quantize.name}: its codes do not begin at 0, where {before.function} does; it cannot be snapped")

    @property
    def skips(self) -> set[str]:
        """Operands and results of all sums."""
        return set().union(*self.chains)

    def _chain(self, names: set[str]) -> None:
        """Join what a sum reads and gives with the chains that one of them is part of."""
        apart = [chain for chain in self.chains if not chain & names]
        self.chains = [*apart, names.union(*(chain for chain in self.chains if chain & names))]

    def _code(self, name: str, consumer: Operation) -> None:
        source = self.operations.get(name)
        known = isinstance(source, Activate) and source.function in ("relu", "relu6", "hardswish")
        if not (known and isinstance(self.operations.get(source.inputs[0]), Layer)):  # type: ignore[union-attr]
            raise ValueError(
                f"{consumer.name}: it takes {name}, which is no ReLU or h-swish output of a layer; it cannot be snapped"
            )
        self.coded.add(name)
