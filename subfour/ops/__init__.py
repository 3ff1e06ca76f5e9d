"""Pure tensor functions: the integer grid and the one form every quantizer reduces to."""

from subfour.ops.affine import QuantParams, bin_centres, dequantize, exact, fake_quantize, quantize, quantize_ste
from subfour.ops.grid import FLOAT_BITS, IntegerGrid, check_bits

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
]
