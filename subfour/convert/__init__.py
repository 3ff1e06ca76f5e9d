"""From a float network to a quantized one: what feeds each layer, what that asks for, and the exchange in place."""

from subfour.convert.graph import Site, find_sites
from subfour.convert.policy import LayerRule, Padding, make_policy
from subfour.convert.rewrite import convert

__all__ = ["LayerRule", "Padding", "Site", "convert", "find_sites", "make_policy"]
