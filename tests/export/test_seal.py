import json
import random
from pathlib import Path

import pytest

from subfour.export.runtime import read_file
from subfour.export.seal import is_sealed
from tests.export.files import content_of, model_of

TINY = "subfour/tiny_mobilenet_v3"


def test_every_flipped_bit_is_noticed(tmp_path: Path):
    """In weights, graph, metadata and the checksum itself; by whoever reads the file, in one line."""
    content = content_of(TINY, snapped=True)
    assert is_sealed(content)
    place = content.index(b'"sha256": "')
    rng = random.Random(0)
    places = [*range(place, place + 76), *(rng.randrange(len(content)) for _ in range(100))]
    file = tmp_path / "model.onnx"
    for number, position in enumerate(places):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.randrange(8)
        assert not is_sealed(bytes(damaged))
        if not number % 8:
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"^model: \S+ is damaged|export it again$"):
                read_file(file)


def test_a_weight_that_changed_before_the_file_was_written_again_is_noticed(tmp_path: Path):
    """As a tool does that reads and writes ONNX."""
    model = type(model_of(TINY, snapped=True)).FromString(content_of(TINY, snapped=True))
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith(".weight"))
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"is damaged: its content does not have the checksum in its metadata; export it again$"):
        read_file(file)


def test_a_file_without_a_checksum_is_refused(tmp_path: Path):
    content = content_of(TINY, snapped=True)
    file = tmp_path / "model.onnx"
    file.write_bytes(content.replace(b'"sha256"', b'"sha257"'))
    with pytest.raises(ValueError, match="its metadata are not those of"):
        read_file(file)
    assert is_sealed(json.dumps({"sha256": "none"}).encode()) is None
