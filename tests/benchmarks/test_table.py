from pathlib import Path

import pytest
from table import RESULTS, provenance, read_rows, write_rows

from subfour.environment import environment


@pytest.mark.parametrize("table", sorted(RESULTS.glob("*.csv")), ids=lambda table: table.stem)
def test_the_rows_of_a_table_written_again_are_the_same_file(table: Path, tmp_path: Path):
    rows = read_rows(table)
    write_rows(tmp_path / table.name, list(rows[0]), rows)
    assert (tmp_path / table.name).read_bytes() == table.read_bytes()


def test_what_a_row_does_not_have_is_an_empty_cell(tmp_path: Path):
    table = tmp_path / "kills.csv"
    assert read_rows(table) == []
    write_rows(
        table, ["moment", "kills", "runs"], [{"moment": "in an epoch", "kills": 3}, {"moment": "all", "kills": 3, "runs": 1}]
    )
    assert read_rows(table) == [{"moment": "in an epoch", "kills": "3", "runs": ""}, {"moment": "all", "kills": "3", "runs": "1"}]


def test_a_row_says_when_where_and_by_which_commit_it_was_measured():
    here = environment()
    commit = here["git"] and here["git"]["commit"]
    assert provenance() == {"date": here["date"][:10], "cpu": here["cpu"], "commit": commit}
