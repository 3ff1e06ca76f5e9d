"""What comparing a file with its run found: executor by executor, and how large integers became."""

from dataclasses import dataclass, field
from typing import NamedTuple

from subfour.export.record import Record
from subfour.integer.bounds import Bound

LOGITS = "logits"
"""Where answers differ though no code does."""


@dataclass(kw_only=True, slots=True)
class Comparison:
    """What one executor did, beside the reference."""

    images: int = 0
    exact_images: int = 0
    """With the reference's accumulators in the last layer."""
    correct: int = 0
    """Images whose label has the largest logit."""
    codes: int = 0
    """Compared, end to end."""
    different_codes: dict[str, int] = field(default_factory=dict)
    """By quantizer, in the network's order, where there are any."""
    parts: int = 0
    """Compared layer by layer."""
    different_parts: dict[str, int] = field(default_factory=dict)
    """Numbers that differ, by layer or quantizer, where there are any."""

    @property
    def exact(self) -> bool:
        """Whether nothing differs anywhere."""
        return self.exact_images == self.images and not self.different_codes and not self.different_parts

    @property
    def first_difference(self) -> str | None:
        """The quantizer where the first code differs, end to end."""
        if self.different_codes:
            return next(iter(self.different_codes))
        return None if self.exact_images == self.images else LOGITS


class Extent(NamedTuple):
    """Of a layer's accumulators, or of a sum's values."""

    largest: int
    """Magnitude that the images gave."""
    bound: Bound

    @property
    def exact(self) -> bool:
        """Whether float32 had to be exact on these images."""
        return self.largest <= self.bound.exact


class Verification(NamedTuple):
    """What came of comparing a file with its run."""

    record: Record
    comparisons: dict[str, Comparison]
    """By executor."""
    extents: dict[str, Extent]
    """By layer and sum; of a snapped network only."""
