"""One paper per file; `QUANTIZER_PAIRS` names our pairs of activation and weight quantizer, other packages may bring more."""

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from subfour.ops import FLOAT_BITS
from subfour.plugins import load_plugin, plugins
from subfour.quantizers.affine import Affine, AffineWeight
from subfour.quantizers.base import HSWISH_MINIMUM, Domain, Quantizer, RangeStart, positive_percentile
from subfour.quantizers.dsq import DSQ, DSQWeight
from subfour.quantizers.duq import DuQ, DuQStack, DuQWeight
from subfour.quantizers.duq_offset import DuQOffset, DuQOffsetWeight
from subfour.quantizers.image import ImageQuantizer
from subfour.quantizers.lsq import LSQ, LSQWeight
from subfour.quantizers.lsq_plus import LSQPlus, LSQPlusWeight
from subfour.quantizers.pact import PACT
from subfour.quantizers.sawb import COEFFICIENTS, SAWB
from subfour.quantizers.uniq import UNIQ

Granularity = Literal["layer", "channel"]
"""Weight ranges per layer, or per output channel."""


class QuantizerPair(NamedTuple):
    """What a run chooses by one name."""

    activation: Callable[[Domain], Quantizer]
    weight: Callable[..., Quantizer]
    """Takes `range_shape` where weights may have a range per channel."""
    per_channel: bool = False
    """Whether weights may have a range per output channel."""
    follows_inputs: bool = False
    """Whether activation ranges are not learned, but follow what arrives while training."""
    weight_bits: Collection[int] = range(2, 9)
    """Widths that weights may have, beside float."""
    integers: bool = True
    """Whether a network of them can be said in integers (integer/fold.py)."""
    takes_start: bool = False
    """Whether activation ranges start as `Quantizer.start` says."""


QUANTIZER_PAIRS: dict[str, QuantizerPair] = {
    "duq": QuantizerPair(DuQ, DuQWeight, per_channel=True, takes_start=True),
    "duq-offset": QuantizerPair(DuQOffset, DuQOffsetWeight, per_channel=True, takes_start=True),
    "pact-sawb": QuantizerPair(PACT, SAWB, weight_bits=COEFFICIENTS, takes_start=True),
    "lsq": QuantizerPair(LSQ, LSQWeight, per_channel=True),
    "lsq-plus": QuantizerPair(LSQPlus, LSQPlusWeight, per_channel=True),
    "dsq": QuantizerPair(DSQ, DSQWeight, integers=False, takes_start=True),
    "affine": QuantizerPair(Affine, AffineWeight, follows_inputs=True),
    "uniq": QuantizerPair(Affine, UNIQ, follows_inputs=True, integers=False),
}

if TYPE_CHECKING:
    QuantizerName = str
else:
    QuantizerName = Literal[*QUANTIZER_PAIRS, *plugins("quantizers")]
"""One of `QUANTIZER_PAIRS`, or DISTRIBUTION/NAME of another package's."""


def quantizer_pair(name: QuantizerName) -> QuantizerPair:
    """Return the pair of this name, ours or another package's.

    Raises:
        ValueError: there is none, or the other package does not bring a pair.
    """
    if name in QUANTIZER_PAIRS:
        return QUANTIZER_PAIRS[name]
    if name not in plugins("quantizers"):
        raise ValueError(f"quantizer: {name!r} is not known; use one of {', '.join([*QUANTIZER_PAIRS, *plugins('quantizers')])}")
    pair = load_plugin("quantizers", name)
    if not isinstance(pair, QuantizerPair):
        raise ValueError(f"quantizer: {name} is of type {type(pair).__name__}; its package must name a QuantizerPair")
    return pair


def check_granularity(quantizer: QuantizerName, granularity: Granularity) -> None:
    """Raise unless the quantizer can have weight ranges like that.

    Raises:
        ValueError: it has one range per layer only.
    """
    if granularity == "channel" and not quantizer_pair(quantizer).per_channel:
        able = " or ".join(name for name, pair in QUANTIZER_PAIRS.items() if pair.per_channel)
        raise ValueError(f"weight_granularity: {quantizer} has no ranges per channel; use layer, or --quantizer {able}")


def check_weight_bits(quantizer: QuantizerName, widths: Iterable[int]) -> None:
    """Raise unless the quantizer can have weights of each of the widths; 32 is float.

    Raises:
        ValueError: it has no equation for one of them.
    """
    able = quantizer_pair(quantizer).weight_bits
    if strange := [bits for bits in widths if bits != FLOAT_BITS and bits not in able]:
        raise ValueError(
            f"weight_bits: {quantizer} knows nothing of {strange[0]} bits; "
            f"choose from {', '.join(map(str, able))}, or another --quantizer"
        )


def check_exportable(quantizer: QuantizerName) -> None:
    """Raise unless a network of the quantizer's can be said in integers.

    Raises:
        ValueError: it cannot.
    """
    if not quantizer_pair(quantizer).integers:
        able = ", ".join(name for name, pair in QUANTIZER_PAIRS.items() if pair.integers)
        raise ValueError(f"quantizer: {quantizer} has no integer form; of those here, {able} have one")


__all__ = [
    "DSQ",
    "HSWISH_MINIMUM",
    "LSQ",
    "PACT",
    "QUANTIZER_PAIRS",
    "SAWB",
    "UNIQ",
    "Affine",
    "AffineWeight",
    "DSQWeight",
    "Domain",
    "DuQ",
    "DuQOffset",
    "DuQOffsetWeight",
    "DuQStack",
    "DuQWeight",
    "Granularity",
    "ImageQuantizer",
    "LSQPlus",
    "LSQPlusWeight",
    "LSQWeight",
    "Quantizer",
    "QuantizerName",
    "QuantizerPair",
    "RangeStart",
    "check_exportable",
    "check_granularity",
    "check_weight_bits",
    "positive_percentile",
    "quantizer_pair",
]
