"""The integers a quantizer may produce at a given bit width."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IntegerGrid:
    """A closed range of integer codes, `qmin` .. `qmax`."""

    qmin: int
    qmax: int

    @property
    def num_levels(self) -> int:
        """Number of codes in the grid."""
        return self.qmax - self.qmin + 1

    @classmethod
    def unsigned(cls, bits: int) -> "IntegerGrid":
        """Codes 0 .. 2^bits - 1.

        >>> IntegerGrid.unsigned(4)
        IntegerGrid(qmin=0, qmax=15)
        """
        return cls(0, 2**bits - 1)

    @classmethod
    def signed(cls, bits: int) -> "IntegerGrid":
        """Codes -2^(bits-1) .. 2^(bits-1) - 1, as LSQ has them.

        >>> IntegerGrid.signed(2)
        IntegerGrid(qmin=-2, qmax=1)
        """
        return cls(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    @classmethod
    def signed_narrow(cls, bits: int) -> "IntegerGrid":
        """Codes -L .. L with L = 2^(bits-1) - 1: symmetric, so without -2^(bits-1).

        >>> IntegerGrid.signed_narrow(2)
        IntegerGrid(qmin=-1, qmax=1)
        """
        largest = 2 ** (bits - 1) - 1
        return cls(-largest, largest)
