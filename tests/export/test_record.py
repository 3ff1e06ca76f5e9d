import json
from dataclasses import replace

import pytest

from subfour.export.record import Record
from tests.export.files import program_of, record_for

TINY = "subfour/tiny_mobilenet_v3"


def test_a_record_survives_json():
    record = replace(record_for(program_of(TINY, snapped=True)), accuracy={"top1": 98.5})
    assert Record.from_json(record.to_json()) == record
    assert record.snapped


@pytest.mark.parametrize("text", ["", "{}", "[]", "no json", '{"format": "subfour export 1"}', '{"format": "subfour export 0"}'])
def test_other_metadata_are_refused(text: str):
    with pytest.raises(ValueError, match="its metadata are not those of 'subfour export 1'; export it again"):
        Record.from_json(text)


def test_preprocessing_is_checked_as_everywhere():
    fields = json.loads(record_for(program_of(TINY, snapped=False)).to_json())
    fields["preprocessing"]["image_size"] = 0
    with pytest.raises(ValueError, match="export it again"):
        Record.from_json(json.dumps(fields))
