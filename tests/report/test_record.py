from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from subfour.profit.config import RunConfig
from subfour.report.record import METHODS, read_record


@pytest.mark.parametrize(("name", "status"), [("finished", "finished"), ("float", "finished"), ("nan", "collapsed")])
def test_the_status_is_what_the_files_say(run: Callable[[str], Path], name: str, status: str):
    assert read_record(run(name)).status == status


def test_a_run_that_was_cut_off_has_the_widths_whose_last_epoch_is_done(run: Callable[[str], Path], cut_off: Path):
    record, whole = read_record(cut_off), read_record(run("finished"))
    assert record.status == "unfinished"
    assert len(record.metrics) == 20
    assert record.widths == whole.widths[: len(record.widths)]
    assert [row.name for row in record.widths] == ["float", "A8W32", "A5W32", "A4W32", "A4W8"]


def test_the_costs_are_those_of_the_runs_own_network(run: Callable[[str], Path]):
    record = read_record(run("finished"))
    cost = record.cost(4, 4)
    assert cost is not None
    assert record.result is not None
    assert cost.bytes == record.result["rows"][-1]["bytes"]
    assert record.fixed_ranges == {"features.0.0"}


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="not a run directory"):
        read_record(tmp_path)


def test_every_method_has_words():
    assert set(METHODS) == set(get_args(get_type_hints(RunConfig)["method"]))
