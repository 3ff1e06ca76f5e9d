import json
from pathlib import Path

from bench_demo import phase_seconds


def test_each_kind_of_phase_has_the_seconds_that_passed_in_its_epochs(tmp_path: Path):
    told = [("float", 2.0), ("float", 3.5), ("stabilize", 5.0), ("finetune", 6.0), ("stabilize", 9.0)]
    lines = [json.dumps({"kind": kind, "seconds": seconds}) for kind, seconds in told]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert phase_seconds(tmp_path) == {"float": 3.5, "stabilize": 4.5, "finetune": 1.0}
