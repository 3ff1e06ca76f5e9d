"""From a float network to a quantized one: what feeds each layer, what that asks for, and the exchange in place."""

from subfour.convert.policy import LayerRule, Padding
from subfour.convert.rewrite import convert

__all__ = ["LayerRule", "Padding", "convert"]
