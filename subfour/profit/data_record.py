"""What a model must know of the data it was trained on: class names, and what its network expects of an image."""

from dataclasses import asdict, dataclass
from typing import Any

from subfour.data.preprocess import Preprocessing

DATA_FILE = "data.json"
"""`DataRecord` of a run, beside a record of its images."""


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """See the head of this file."""

    classes: tuple[str, ...]
    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "DataRecord":
        """Rebuild a record."""
        return cls(classes=tuple(data["classes"]), preprocessing=Preprocessing.from_json(data["preprocessing"]))
