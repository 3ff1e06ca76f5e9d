"""Pure tensor functions: the integer grid, bit widths, and the one form every quantizer reduces to."""

from subfour.ops.affine import QuantParams, bin_centres, dequantize, exact, fake_quantize, quantize, quantize_ste
from subfour.ops.grid import IntegerGrid
from subfour.ops.widths import FLOAT_BITS, check_bits, widths_key, widths_name

__all__ = [
    "FLOAT_BITS",
    "IntegerGrid",
    "QuantParams",
    "bin_centres",
    "check_bits",
    "dequantize",
    "exact",
    "fake_quantize",
    "quantize",
    "quantize_ste",
    "widths_key",
    "widths_name",
]
