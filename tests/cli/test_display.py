import io

import pytest
from rich.console import Console

from subfour.cli import display
from subfour.cli.display import Pace, ProgressDisplay, duration
from subfour.profit.phases import Phase

PHASES = [
    Phase(kind="float", weight_bits=32, activation_bits=32, epochs=3),
    Phase(kind="finetune", weight_bits=4, activation_bits=4, epochs=2),
]

STEPS = 10


class Clock:
    """Time that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        """Return the time set last."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


def make_display(*, terminal: bool = False, width: int = 80) -> tuple[ProgressDisplay, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, soft_wrap=True, _environ={"TERM": "xterm"})
    return ProgressDisplay(console, PHASES, STEPS), out


def record(**changes: object) -> dict[str, object]:
    accuracy = {"top1": 98.765, "top5": 100.0, "loss": 0.1234, "images": 355}
    return {
        "phase": 1,
        "kind": "finetune",
        "weight_bits": 4,
        "activation_bits": 4,
        "frozen_layers": 5,
        "epoch": 0,
        "epochs": 2,
        "train_loss": 1.23456,
        "raw": accuracy,
        "averaged": accuracy | {"top1": 99.0},
        "seconds": 3661.2,
    } | changes


def drawn(display: ProgressDisplay, width: int = 80) -> list[str]:
    """Return the live part as a terminal of that width shows it."""
    out = io.StringIO()
    Console(file=out, width=width).print(display.live.renderable)
    return out.getvalue().splitlines()


def test_a_finished_epoch_is_one_line_of_80_columns():
    shown, out = make_display()
    with shown:
        shown.epoch_done(record())
        shown.epoch_done(record(train_loss=123.4, raw=record()["raw"] | {"loss": 17.5, "top1": 100.0}, epoch=1))
    headings, first, second = out.getvalue().splitlines()
    assert headings.split() == ["phase", "kind", "widths", "frozen", "epoch", "loss", "val", "top-1", "average", "time"]
    assert first.split() == ["2/2", "finetune", "A4W4", "5", "1/2", "1.235", "0.123", "98.77", "99.00", "1:01:01"]
    assert second.split() == ["2/2", "finetune", "A4W4", "5", "2/2", "123.4", "17.5", "100.00", "99.00", "1:01:01"]
    assert len(headings) == len(first) == len(second) < 80


def test_the_bars_say_where_the_run_is_and_how_long_it_takes(clock: Clock):
    """12 steps of a second each: 18 of 30 left in the phase, 38 of 50 in the run."""
    shown, _ = make_display()
    shown.phase_begins(0, PHASES[0], [], 0)
    for step in range(12):
        clock.now += 1
        shown.step_done(step, 1.5, 50.0)
    heading, phase, run = drawn(shown)
    assert heading == "phase 1 of 2: float A32W32, 0 layers frozen, loss 1.500, top-1 50.0 %"
    assert phase.split()[0] == "phase"
    assert phase.endswith("epoch 2/3 0:00:18 left")
    assert run.endswith("epoch 2/5 0:00:38 left")


def test_a_resumed_run_shows_what_was_done_before(clock: Clock):
    shown, _ = make_display()
    shown.phase_begins(1, PHASES[1], ["a", "b"], 1)
    heading, phase, run = drawn(shown)
    assert heading.startswith("phase 2 of 2: finetune A4W4, 2 layers frozen")
    assert phase.endswith("epoch 1/2 ? left")
    assert run.endswith("epoch 4/5 ? left")
    for _ in range(2):
        clock.now += 2
        shown.step_done(0, 1.0, 0.0)
    assert [line.split("epoch ")[1] for line in drawn(shown)[1:]] == ["2/2 0:00:16 left", "5/5 0:00:16 left"]


def test_a_run_that_goes_on_within_an_epoch_shows_its_steps(clock: Clock):
    """Those of the epoch that were done before count too."""
    shown, _ = make_display()
    shown.phase_begins(0, PHASES[0], [], 1)
    shown.step_done(STEPS - 2, 1.0, 0.0)
    shown.step_done(STEPS - 1, 1.0, 0.0)
    assert [shown.bars.tasks[bar].completed for bar in (shown.phase_bar, shown.run_bar)] == [2 * STEPS, 2 * STEPS]


def test_a_finished_run_has_nothing_left(clock: Clock):
    shown, _ = make_display()
    for index, phase in enumerate(PHASES):
        shown.phase_begins(index, phase, [], 0)
        for step in range(phase.epochs * STEPS):
            clock.now += 1
            shown.step_done(step, 1.0, 0.0)
    assert [line.split("epoch ")[1] for line in drawn(shown)[1:]] == ["2/2 0:00:00 left", "5/5 0:00:00 left"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_live_part_has_three_lines_in_any_terminal(width: int):
    shown, _ = make_display()
    shown.phase_begins(0, PHASES[0], [], 0)
    shown.step_done(0, 1.5, 50.0)
    lines = drawn(shown, width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= width


def test_bars_are_drawn_in_a_terminal_only():
    for terminal in (True, False):
        shown, out = make_display(terminal=terminal)
        with shown:
            shown.phase_begins(0, PHASES[0], [], 0)
        assert ("phase 1 of 2" in out.getvalue()) == terminal


def test_the_pace_counts_pauses_but_not_the_warm_up(clock: Clock):
    """A first step of 100 s is forgotten; then 1 s a step, and 11 s where an evaluation lies between two steps."""
    pace = Pace(decay=1 - 1e-9)
    for seconds in (100, 1, 1, 11, 1):
        clock.now += seconds
        pace.step()
    assert pace.seconds == pytest.approx(14 / 4)


def test_the_pace_follows_a_change():
    """Half of what it knew is forgotten after a step at decay 1/2."""
    pace = Pace(decay=0.5)
    pace.last = 0.0
    pace.total, pace.weight = 8.0, 2.0
    assert pace.seconds == 4.0


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00:00"), (59.6, "0:01:00"), (3599, "0:59:59"), (360_000, "100:00:00")])
def test_durations_are_hours_minutes_seconds(seconds: float, shown: str):
    assert duration(seconds) == shown
