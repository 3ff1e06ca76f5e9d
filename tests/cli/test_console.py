"""What is printed for programs."""

import json

import pytest

from subfour.cli.console import print_json


def test_numbers_that_json_does_not_know_become_null(capsys: pytest.CaptureFixture[str]):
    print_json({"loss": float("nan"), "rows": [{"top1": 50.0}, (float("inf"), -1)]})
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=pytest.fail) == {"loss": None, "rows": [{"top1": 50.0}, [None, -1]]}
