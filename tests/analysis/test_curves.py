import math

import pytest

from subfour.analysis.curves import fluctuation, loss_curve


def records(*phases: tuple[str, list[float]]) -> list[dict]:
    """Return the records of phases, each a kind and its validation losses."""
    return [
        {"phase": index, "kind": kind, "train_loss": loss / 2, "raw": {"loss": loss}}
        for index, (kind, losses) in enumerate(phases)
        for loss in losses
    ]


UNFROZEN = ("finetune", [70.0, 7.0])
"""The first phase after sampling, in which no method freezes a layer: what happens there does not count."""


def test_a_curve_counts_epochs_over_the_whole_run():
    curve = loss_curve("a", records(("float", [4, 2]), ("sample", [3])))
    assert curve.training == [(1, 2), (2, 1), (3, 1.5)]
    assert curve.validation == [(1, 4), (2, 2), (3, 3)]


def test_losses_inside_an_epoch_lie_at_equal_distances_on_the_curve():
    run = records(("float", [4]), ("finetune", [2]))
    run[1]["raw_losses"] = [3.5, 3, 2.5]
    assert loss_curve("a", run).validation == [(1, 4), (1.25, 3.5), (1.5, 3), (1.75, 2.5), (2, 2)]


def test_losses_inside_an_epoch_are_changes_of_their_own():
    """1, 3 and 2 about their mean 2, as below."""
    run = records(("sample", [5]), UNFROZEN, ("finetune", [11, 14]), ("finetune", [106]))
    run[3]["raw_losses"], run[5]["raw_losses"] = [10], [104]
    found = fluctuation([run])
    assert found is not None
    assert (found.deviation, found.changes) == (1, 3)


def test_fluctuation_is_the_deviation_of_the_changes_after_sampling_inside_each_phase():
    """Changes 1, 3 and 2 about their mean 2: variance (1 + 1 + 0) / 2. The jump of 90 between phases is a restart."""
    run = records(("finetune", [9, 1]), ("sample", [5, 500]), UNFROZEN, ("finetune", [10, 11, 14]), ("finetune", [104, 106]))
    found = fluctuation([run])
    assert found is not None
    assert (found.deviation, found.changes, found.runs) == (1, 3, 1)


def test_with_several_seeds_the_mean_curve_is_taken_off():
    """Changes 1, 3 and 3, 5: both deviate by 1 from their mean in each of 2 columns; 4 squares, 2 degrees of freedom."""
    runs = [records(("sample", [0]), UNFROZEN, ("finetune", losses)) for losses in ([0, 1, 4], [0, 3, 8])]
    found = fluctuation(runs)
    assert found is not None
    assert (found.deviation, found.changes, found.runs) == (pytest.approx(math.sqrt(2)), 2, 2)


def test_seeds_of_the_same_curve_do_not_fluctuate():
    run = records(("sample", [0]), UNFROZEN, ("finetune", [0, 5, 1]))
    found = fluctuation([run, run])
    assert found is not None
    assert found.deviation == 0


@pytest.mark.parametrize(
    "run",
    [
        [],
        records(("float", [1, 2, 3])),
        records(("sample", [1, 2, 3])),
        records(("sample", [1]), ("finetune", [1, 2, 5])),
        records(("sample", [1]), UNFROZEN, ("finetune", [1, 2])),
        records(("sample", [1]), UNFROZEN, ("finetune", [1, math.nan, 2])),
    ],
)
def test_without_two_finite_changes_there_is_no_fluctuation(run: list[dict]):
    assert fluctuation([run]) is None


def test_runs_with_other_numbers_of_looks_have_no_fluctuation_together():
    """Their changes are of other distances: of epochs in the one, of quarters in the other."""
    often, seldom = ([("sample", [0]), UNFROZEN, ("finetune", losses)] for losses in ([0, 1, 4, 5], [0, 3, 8]))
    assert fluctuation([records(*often), records(*seldom)]) is None
