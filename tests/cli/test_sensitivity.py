import json
from pathlib import Path

from tests.cli.command import error, printed


def test_json_lists_the_layers_by_aiwq(finished_run: Path):
    rows = json.loads(printed("sensitivity", finished_run, "--json"))
    assert len(rows) == 16
    assert all({"name", "kind", "aiwq", "frozen_in_phase"} <= row.keys() for row in rows)
    assert [row["aiwq"] for row in rows] == sorted((row["aiwq"] for row in rows), reverse=True)
    assert "se" not in {row["kind"] for row in rows}


def test_a_third_is_frozen_in_each_stage(finished_run: Path):
    """Phases of the list of `subfour plan --json`, from 0: 19 freezes a third of 16 layers, 20 two thirds."""
    frozen = [row["frozen_in_phase"] for row in json.loads(printed("sensitivity", finished_run, "--json"))]
    assert frozen == [19] * 5 + [20] * 5 + [None] * 6
    plan = json.loads((finished_run / "plan.json").read_text())
    assert (plan[19]["frozen"], plan[20]["frozen"]) == ("1/3", "2/3")


def test_the_table_counts_phases_from_1_as_training_does(finished_run: Path):
    title, headings, *rows = printed("sensitivity", finished_run).splitlines()
    assert title.startswith(f"{finished_run}: AIWQ, the most unstable first")
    assert headings.split() == ["name", "kind", "AIWQ", "dropped", "frozen", "from"]
    assert rows[0].endswith("phase 20")
    assert rows[-1].endswith("never")


def test_a_run_without_sampling_is_refused(interrupted: Path, tmp_path: Path):
    assert error("sensitivity", interrupted).startswith(f"run: {interrupted} knows no AIWQ")
    assert error("sensitivity", tmp_path).startswith(f"{tmp_path}: not a run directory")
