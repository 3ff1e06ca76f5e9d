"""What a model must know of the data it was trained on: class names, and what its network expects of an image."""

from dataclasses import asdict, dataclass
from typing import Any

from subfour.data.preprocess import Preprocessing
from subfour.rundir import RunDirectory

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
        """Rebuild a record.

        Raises:
            ValueError: a value is not possible.
            KeyError, TypeError, AttributeError: something is missing, or of another kind.
        """
        return cls(classes=tuple(data["classes"]), preprocessing=Preprocessing.from_json(data["preprocessing"]))


def data_in(run: RunDirectory) -> DataRecord:
    """Return what a run knows of its data.

    Raises:
        ValueError: the file is missing or damaged.
    """
    content = run.read_json(DATA_FILE, {"classes": [str], "preprocessing": dict})
    try:
        return DataRecord.from_json(content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{run.path / DATA_FILE}: damaged, {error}") from None
