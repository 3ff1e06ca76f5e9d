"""Which quantizer each layer gets, and why: one rule per layer, by exact name.

    fed by                       domain       codes at n bits       padded with
    ReLU, ReLU6                  unsigned     0 .. 2^n - 1          0
    h-swish                      hswish       0 .. 2^n - 1          -3/8 (negative padding), or 0
    linear bottleneck            signed       -L .. L               0
    the image                    image        8-bit, fixed range    0

Source: PROFIT, arXiv:2008.04693, and its supplement, Sec. 5. Pooling and squeeze-and-excitation keep the domain of
what is pooled or gated.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from subfour.convert.graph import InputDomain, Site, find_sites
from subfour.layers import EIGHT_BIT_INPUT, LayerKind
from subfour.quantizers import QuantizerName, QuantizerPair, quantizer_pair

Padding = Literal["negative", "zero"]
"""`negative`: with the quantizer's offset, -3/8 under DuQ's h-swish, a learned one under LSQ+ and DSQ. `zero`: as the float
network pads."""

REASONS: dict[InputDomain, str] = {
    "image": "pixels, range fixed by the normalisation",
    "unsigned": "never negative",
    "hswish": "never below -3/8",
    "signed": "both signs",
}


@dataclass(frozen=True, slots=True)
class LayerRule:
    """How one layer is quantized."""

    name: str
    """Exact module name."""
    kind: LayerKind
    domain: InputDomain
    pad_value: float
    """What the border is padded with; 0 where nothing is padded. A learned offset takes its place once it has a value."""
    pads_offset: bool
    """Whether the border is the quantizer's offset."""
    source: str
    """What feeds the layer."""
    reason: str
    """Why the input gets this quantizer."""


def make_policy(model: nn.Module, *, quantizer: QuantizerName, padding: Padding) -> list[LayerRule]:
    """Return one rule for each convolution and linear layer of a float network, in the model's own order.

    Args:
        model: a float network; it is read only.
        quantizer: the pair, see `subfour.quantizers`.
        padding: what convolutions are padded with.

    Raises:
        ValueError: the pair or padding is unknown, or a layer cannot be placed (see `find_sites`).
    """
    pair = quantizer_pair(quantizer)
    if padding not in get_args(Padding):
        raise ValueError(f"padding: {padding!r} is not known; use {' or '.join(get_args(Padding))}")
    return [
        LayerRule(
            name=site.name,
            kind=site.kind,
            domain=site.domain,
            pad_value=_offset(site, pair) if padding == "negative" and _pads(site.layer) else 0.0,
            pads_offset=padding == "negative" and _pads(site.layer),
            source=site.source,
            reason=REASONS[site.domain] + ("; keeps 8 bits" if site.kind in EIGHT_BIT_INPUT else ""),
        )
        for site in find_sites(model)
    ]


def _pads(layer: nn.Conv2d | nn.Linear) -> bool:
    return isinstance(layer, nn.Conv2d) and any(layer._reversed_padding_repeated_twice)


def _offset(site: Site, pair: QuantizerPair) -> float:
    """Return the value of the code that the padding becomes."""
    return 0.0 if site.domain == "image" else pair.activation(site.domain).offset
