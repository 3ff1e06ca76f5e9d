"""Exhibits say what was, whatever the method and however far the run came."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from subfour.profit.phases import build_phases
from subfour.report.exhibits.costs import tradeoff_exhibit
from subfour.report.exhibits.instability import freezing_exhibit, instability_exhibit
from subfour.report.exhibits.losses import profit_exhibit
from subfour.report.exhibits.quantizers import histogram_exhibit
from subfour.report.exhibits.ranges import range_exhibit
from subfour.report.record import RunRecord, named_apart
from tests.report.records import CONFIG, epoch, record

REVERSED = replace(CONFIG, method="reversed-order")

PHASES = build_phases(REVERSED)

FIRST, SECOND = (index for index, phase in enumerate(PHASES) if phase.frozen)

BEFORE = sum(phase.epochs for phase in PHASES[:FIRST])
"""Epochs before anything freezes."""


def layer(name: str, frozen_in_phase: int | None) -> dict[str, Any]:
    return {"name": name, "kind": "pointwise", "aiwq": 0.5, "dropped": 0.0, "frozen_in_phase": frozen_in_phase}


def frozen(epochs: int, **changes: Any) -> RunRecord:
    """Return a run in reversed order that came so far: the most unstable layer of three was never frozen."""
    layers = [layer("a", None), layer("b", SECOND), layer("c", FIRST)]
    sound: dict[str, Any] = {"config": REVERSED, "phases": PHASES, "metrics": [epoch()] * epochs, "sensitivity": layers}
    return record(**(sound | changes))


def test_the_freezing_figure_shows_what_was_frozen_in_any_order():
    first, second = PHASES[FIRST].epochs, PHASES[SECOND].epochs
    exhibit = freezing_exhibit(frozen(BEFORE + first + second))
    assert exhibit.rows == [
        ("b", BEFORE + first, BEFORE + first + second),
        ("c", BEFORE, BEFORE + first),
        ("c", BEFORE + first, BEFORE + first + second),
    ]


def test_the_freezing_figure_shows_no_epoch_that_was_not_trained():
    assert freezing_exhibit(frozen(BEFORE + 1)).rows == [("c", BEFORE, BEFORE + 1)]
    assert freezing_exhibit(frozen(BEFORE)).rows == []


def test_the_freezing_figure_says_what_else_stands_still():
    covers = replace(REVERSED, profit=replace(REVERSED.profit, covers="weights+ranges+batchnorm"))
    assert "Nor do its ranges and its batch norm." in freezing_exhibit(frozen(BEFORE + 1, config=covers)).caption
    assert "Batch norm and ranges go on." in freezing_exhibit(frozen(BEFORE + 1)).caption


def test_bands_of_aiwq_follow_the_phases_though_their_layers_lie_apart():
    layers = [layer("a", FIRST), layer("b", SECOND), layer("c", FIRST), layer("d", None)]
    svg = instability_exhibit(frozen(BEFORE, sensitivity=layers)).svg
    assert svg.count(f"frozen from phase {FIRST + 1}") == svg.count(f"frozen from phase {SECOND + 1}") == 1


def test_runs_whose_folders_share_a_name_are_told_apart():
    """As those of a study do: ROW/seed-0."""
    losses = {"a": 1.0, "b": 2.0}
    records = [record(path=Path(f"study/{row}/seed-0"), name="seed-0", metrics=[epoch(loss)] * 2) for row, loss in losses.items()]
    apart = named_apart(records)
    assert [run.name for run in apart] == ["a/seed-0", "b/seed-0"]
    rows = profit_exhibit(apart).rows
    assert {(str(label).split(", ")[1], loss) for label, _, loss, _ in rows} == {("a/seed-0", 1.0), ("b/seed-0", 2.0)}
    assert [run.name for run in named_apart([record(), record()])] == ["mine", "mine"]


def sampled(name: str, losses: list[float], **changes: Any) -> RunRecord:
    """Return a run with an epoch of sampling and some that freeze layers."""
    epochs = [epoch() | {"phase": 0, "kind": "sample"}, *(epoch(loss) | {"phase": 2, "kind": "finetune"} for loss in losses)]
    return record(path=Path(name), name=name, config=replace(CONFIG, **changes), metrics=epochs)


def test_only_seeds_fluctuate_together():
    """A float control, or another width, is a run of its own."""
    runs = [
        sampled("a", [0.0, 1.0, 0.0]),
        sampled("b", [0.0, -1.0, 1.0], seed=1),
        sampled("narrow", [0.0, 9.0, 0.0], weight_bits=(2,)),
        sampled("control", [0.0, 2.0, 0.0], weight_bits=(32,), activation_bits=(32,)),
    ]
    caption = profit_exhibit(runs).caption
    found = ("profit, a 1.8028 (2 changes, 2 runs)", "profit, narrow 12.7279 (2 changes)", "float 2.8284 (2 changes)")
    assert f"{'; '.join(found)}." in caption.replace("PROFIT", "profit")


def test_figures_that_are_not_drawn_say_why():
    """Also of runs that will never have them."""
    assert histogram_exhibit([], "").caption == "No input of a layer is quantized with a range for the whole tensor."
    floating = replace(CONFIG, weight_bits=(32,), activation_bits=(32,))
    control = record(config=floating, phases=build_phases(floating), metrics=[epoch()], sensitivity=[])
    assert range_exhibit(control).caption == "No range is trained in this run."
    assert instability_exhibit(control).caption == freezing_exhibit(control).caption.replace("froze nothing", "samples no layer")
    assert instability_exhibit(record(result=None, sensitivity=[])).caption == "No layer is sampled yet."


def test_every_run_is_in_the_tradeoff_figure_whatever_its_name():
    names = ["_mine", "$\\foo$", *(f"run{index}" for index in range(5))]
    svg = tradeoff_exhibit([record(name=name) for name in names]).svg
    assert all(name in svg for name in names)
