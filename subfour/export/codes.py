"""The `codes` format: the integer program in one .npz, for whoever writes firmware or hardware.

Beside the arrays of `integer/lower.py` the file holds `operations`, their list as JSON, and `record`, what every exported file
says about itself. `integer/reference.py` is the program that runs it, with nothing but numpy.
"""

import io
import json

import numpy as np

from subfour.export.record import Record
from subfour.integer.lower import lower
from subfour.integer.program import Program


def codes_file(program: Program, record: Record) -> bytes:
    """Return the file's bytes.

    Args:
        program: snapped.
        record: stored beside it.

    Raises:
        ValueError: the program is not snapped.
    """
    lowered = lower(program)
    texts = {"operations": json.dumps(lowered.operations), "record": record.to_json()}
    encoded = {name: np.frombuffer(text.encode(), dtype=np.uint8) for name, text in texts.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **encoded, **lowered.arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
