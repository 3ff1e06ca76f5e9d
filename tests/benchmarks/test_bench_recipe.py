import threading
from dataclasses import replace
from pathlib import Path

import pytest
import recipe_clock
from bench_recipe import FLOAT, STEP_PARTS, WARM_UP, Turns, configs, measured, rows_of, totals
from recipe_clock import RecipeClock, Seconds

from subfour.profit.phases import build_phases
from subfour.recipes import load_recipe


def test_every_second_belongs_to_the_innermost_part(monkeypatch: pytest.MonkeyPatch):
    now = iter(range(100))
    monkeypatch.setattr(recipe_clock.Seconds, "now", classmethod(lambda _: Seconds(float(number := next(now)), 2.0 * number)))
    clock = RecipeClock()
    clock.turn_to("step")
    with clock.part("teacher"), clock.part("average"):
        pass
    clock.turn_to("between")
    spent = clock.read()
    assert {part: seconds.wall for part, seconds in spent.items()} == {
        "entering": 1.0,
        "step": 2.0,
        "teacher": 2.0,
        "average": 1.0,
        "between": 1.0,
    }
    assert all(seconds.cpu == 2 * seconds.wall for seconds in spent.values())
    clock.skip()
    assert clock.read() == {"between": Seconds(1.0, 2.0)}


def test_runs_take_turns_and_one_that_ends_holds_nobody_up():
    turns, order = Turns(3), []

    def run(who: int, epochs: int) -> None:
        turns.wait(who)
        for epoch in range(epochs):
            order.append((who, epoch))
            turns.hand_on()
            turns.wait(who)
        turns.leave(who)

    threads = [threading.Thread(target=run, args=(who, epochs)) for who, epochs in enumerate((2, 1, 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert order == [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (2, 2)]


@pytest.mark.slow
def test_the_parts_of_two_runs_of_digits_are_those_of_the_recipe(tmp_path: Path):
    """Each run has every part that its phases have, and the whole of a run is more than what was run of it."""
    digits = load_recipe("digits")
    schedule = replace(digits.schedule, max_steps=6, finetune_epochs=1, sample_epochs=1)
    recipe = replace(digits, weight_bits=(4,), activation_bits=(4,), schedule=schedule)
    runs = configs(recipe, ["folded"])
    epochs, steps = measured(runs, tmp_path)
    phases = [phase for phase in build_phases(runs["folded"]) if phase.kind != "float"]
    assert [epoch.kind for epoch in epochs["folded"]] == [phase.kind for phase in phases]
    assert [epoch.kind for epoch in epochs[FLOAT]] == ["float"] * len(phases)
    assert (steps, WARM_UP) == (6, 4)
    assert {row["part"] for row in rows_of(FLOAT, epochs[FLOAT], epochs[FLOAT], steps)} >= {"data", "average", "checkpoint"}
    parts = {part for epoch in epochs["folded"] for part in epoch.parts}
    assert parts >= {*STEP_PARTS, "evaluation", "statistics", "checkpoint", "between", "entering"}
    summed = totals(epochs["folded"], steps, 10 * 6 * 64, recipe)
    assert summed["whole"].cpu > 2 * summed["short"].cpu
