"""What an exported file says about itself: JSON under one key of its metadata.

Imports no torch: whoever predicts reads it.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from subfour.data.preprocess import Preprocessing
from subfour.export.seal import UNSEALED

FileFormat = Literal["onnx", "qonnx", "qdq", "codes"]
"""docs/export.md says what each is good for."""

METADATA = "subfour"
"""Key in the file's metadata."""

FORMAT = "subfour export 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Where a file comes from, what it takes and what its answers mean."""

    file_format: FileFormat
    version: str
    """Of subfour."""
    network: str
    """Its name, as `--model` takes it."""
    architecture: dict[str, Any]
    """Changes to the stock network."""
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    weight_bits: int
    activation_bits: int
    snapping: dict[str, Any] | None
    """What the network was snapped with (integer/measure.py); None if it was not."""
    accuracy: dict[str, Any] | None
    """What the run reported of this very network, at its size and snapped or not, on its validation images; None where it
    reported nothing of it, or for a file exported from a model file."""

    def to_json(self) -> str:
        """Return it as one line of JSON; in an ONNX file with room for the checksum of the file (seal.py)."""
        fields = {"format": FORMAT, **asdict(self)}
        return json.dumps(fields if self.file_format == "codes" else fields | {"sha256": UNSEALED})

    @property
    def snapped(self) -> bool:
        """Whether every executor must give the same codes."""
        return self.snapping is not None

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Rebuild a record.

        Raises:
            ValueError: the text is no record, or of another version of the format.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise ValueError
            fields.pop("sha256", None)  # of the file, checked where it is read
            preprocessing = Preprocessing.from_json(fields.pop("preprocessing"))
            fields["classes"] = tuple(fields["classes"])
            return cls(preprocessing=preprocessing, **fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(f"its metadata are not those of {FORMAT!r}; export it again") from None
