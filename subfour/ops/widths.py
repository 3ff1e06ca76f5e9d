"""Bit widths: which there are, and what a pair of them is called."""

FLOAT_BITS = 32
"""The width that means "not quantized"."""

SUPPORTED_BITS = (2, 3, 4, 5, 6, 7, 8)


def check_bits(bits: int, field: str) -> None:
    """Raise unless `bits` is a width this package can train.

    Args:
        bits: a width in bits.
        field: the name of the option or argument, for the message.

    Raises:
        ValueError: `bits` is neither in 2..8 nor 32 (float).
    """
    if bits not in (*SUPPORTED_BITS, FLOAT_BITS):
        raise ValueError(f"{field}: {bits} bits is not possible; choose from 2..8, or 32 for float")


def widths_key(weight_bits: int, activation_bits: int) -> str:
    """Return what files call a pair of widths: activations first, as the paper has it.

    >>> widths_key(weight_bits=8, activation_bits=4)
    'A4W8'
    """
    return f"A{activation_bits}W{weight_bits}"


def widths_name(weight_bits: int, activation_bits: int, *, snapped: bool = False) -> str:
    """Return what people are shown of a pair of widths.

    >>> widths_name(32, 32), widths_name(4, 4, snapped=True)
    ('float', 'A4W4 snapped')
    """
    is_float = weight_bits == activation_bits == FLOAT_BITS
    name = "float" if is_float else widths_key(weight_bits, activation_bits)
    return f"{name} snapped" if snapped else name
