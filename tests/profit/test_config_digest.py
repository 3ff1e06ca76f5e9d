"""What a checkpoint remembers of its configuration: all that decides a weight, and nothing else."""

from subfour.profit.config import LoadingConfig, ProfitConfig, RunConfig, ScheduleConfig
from subfour.profit.plain import without_later


def test_the_engine_is_not_part_of_what_a_checkpoint_remembers():
    """All compute the same, so that a run may go on with another; what is computed is part of it."""
    digests = {RunConfig(engine=engine).digest for engine in ("auto", "plain", "folded")}
    digests |= {RunConfig(data="digits", device="cpu", loading=LoadingConfig(workers=3, unreadable="skip")).digest}
    assert len(digests) == 1
    assert RunConfig(seed=1).digest not in digests
    assert RunConfig(profit=ProfitConfig(sample_stride=8)).digest not in digests


def test_a_digest_knows_of_the_float_phase_where_there_is_one():
    schedules = [ScheduleConfig(float_epochs=epochs) for epochs in (1, 2)]
    assert len({RunConfig(schedule=schedule).digest for schedule in schedules}) == 2
    assert len({RunConfig(from_run="runs/float", schedule=schedule).digest for schedule in schedules}) == 1


def test_a_digest_knows_of_the_snap_phase_where_there_is_one():
    rates = [ScheduleConfig(snap_lr=rate) for rate in (0.001, 0.0001)]
    assert len({RunConfig(snap=True, schedule=rate).digest for rate in rates}) == 2
    assert len({RunConfig(snap=False, schedule=rate).digest for rate in rates}) == 1


def test_a_digest_knows_nothing_of_fields_that_came_later():
    """Where they say what runs did before: an unfinished run of then goes on now."""
    values = {"seed": 0, "start": "none", "profit": {"sample_stride": 1, "decay": 0.9}, "oscillation": {"dampening": 0.5}}
    kept = {"seed": 0, "profit": {"decay": 0.9}, "oscillation": {"dampening": 0.5}}
    assert without_later(values) == kept
    digests = {RunConfig().digest, RunConfig(start="dfq").digest, RunConfig(profit=ProfitConfig(sample_stride=8)).digest}
    assert len(digests) == 3
