"""One paper per file; `METHODS` names the pairs of activation and weight quantizer a run can choose."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from subfour.quantizers.base import HSWISH_MINIMUM, Domain, Quantizer, positive_percentile
from subfour.quantizers.duq import DuQ, DuQWeight
from subfour.quantizers.image import ImageQuantizer
from subfour.quantizers.pact import PACT
from subfour.quantizers.sawb import SAWB

QuantizerName = Literal["duq", "pact-sawb"]


class Method(NamedTuple):
    """How one method quantizes activations and weights."""

    activation: Callable[[Domain], Quantizer]
    weight: Callable[[], Quantizer]


METHODS: dict[QuantizerName, Method] = {
    "duq": Method(DuQ, DuQWeight),
    "pact-sawb": Method(PACT, SAWB),
}

__all__ = [
    "HSWISH_MINIMUM",
    "METHODS",
    "PACT",
    "SAWB",
    "Domain",
    "DuQ",
    "DuQWeight",
    "ImageQuantizer",
    "Method",
    "Quantizer",
    "QuantizerName",
    "positive_percentile",
]
