import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from subfour.cli.main import main
from subfour.profit.config import ProfitConfig, RunConfig, ScheduleConfig
from subfour.profit.phases import Phase, build_phases
from subfour.recipes import load_recipe

Row = tuple[str, int, int, str, int]
"""Kind, weight bits, activation bits, frozen, epochs."""

PAPER: list[Row] = [
    ("float", 32, 32, "0", 15),
    ("stabilize", 32, 8, "0", 5),
    ("finetune", 32, 8, "0", 15),
    ("stabilize", 32, 8, "0", 5),
    ("stabilize", 32, 5, "0", 5),
    ("finetune", 32, 5, "0", 15),
    ("stabilize", 32, 5, "0", 5),
    ("stabilize", 32, 4, "0", 5),
    ("finetune", 32, 4, "0", 15),
    ("stabilize", 32, 4, "0", 5),
    ("stabilize", 8, 4, "0", 5),
    ("finetune", 8, 4, "0", 15),
    ("stabilize", 8, 4, "0", 5),
    ("stabilize", 5, 4, "0", 5),
    ("finetune", 5, 4, "0", 15),
    ("stabilize", 5, 4, "0", 5),
    ("stabilize", 4, 4, "0", 5),
    ("sample", 4, 4, "0", 5),
    ("finetune", 4, 4, "0", 15),
    ("finetune", 4, 4, "1/3", 15),
    ("finetune", 4, 4, "2/3", 15),
    ("stabilize", 4, 4, "0", 5),
]
"""The authors' schedule, in their order."""


CONTROL: list[Row] = [(kind, 32, 32, "0", epochs) for kind, _, _, _, epochs in PAPER]
"""The same epochs in float."""


def rows(phases: Sequence[Phase]) -> list[Row]:
    columns = ("kind", "weight_bits", "activation_bits", "frozen", "epochs")
    return [tuple(phase.to_json()[column] for column in columns) for phase in phases]


def without_epochs(plan: list[Row]) -> list[Any]:
    return [row[:4] for row in plan]


def block(weight_bits: int, activation_bits: int) -> list[Row]:
    return [
        ("stabilize", weight_bits, activation_bits, "0", 5),
        ("finetune", weight_bits, activation_bits, "0", 15),
        ("stabilize", weight_bits, activation_bits, "0", 5),
    ]


def profit_block(weight_bits: int, activation_bits: int, shares: Sequence[str] = ("1/3", "2/3")) -> list[Row]:
    return [
        ("stabilize", weight_bits, activation_bits, "0", 5),
        ("sample", weight_bits, activation_bits, "0", 5),
        *(("finetune", weight_bits, activation_bits, share, 15) for share in ("0", *shares)),
        ("stabilize", weight_bits, activation_bits, "0", 5),
    ]


@pytest.mark.parametrize("recipe", ["imagenet-mobilenet-v1", "imagenet-mobilenet-v2", "imagenet-mobilenet-v3-large"])
def test_the_papers_recipes_are_the_papers_schedule(recipe: str):
    """22 phases, 200 epochs."""
    phases = build_phases(load_recipe(recipe))
    assert rows(phases) == PAPER
    assert (len(phases), sum(phase.epochs for phase in phases)) == (22, 200)


def test_the_plan_is_printed_as_json(capsys: pytest.CaptureFixture[str]):
    """With these keys in this order, the fraction as text."""
    main(["plan", "imagenet-mobilenet-v2", "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert all(list(phase) == ["kind", "weight_bits", "activation_bits", "frozen", "epochs"] for phase in plan)
    assert [tuple(phase.values()) for phase in plan] == PAPER


def test_a_continued_run_goes_on_from_its_widths():
    """Activations first, with the weights as they were; then the weights, sampled and frozen anew; no float phase."""
    config = RunConfig(from_run="run", starting_weight_bits=4, weight_bits=(3,), activation_bits=(3,))
    assert rows(build_phases(config)) == block(4, 3) + profit_block(3, 3)


def test_down_to_three_bits_all_activations_come_first():
    """And only the last width is sampled and frozen."""
    config = RunConfig(weight_bits=(8, 5, 4, 3), activation_bits=(8, 5, 4, 3))
    expected = [PAPER[0], *block(32, 8), *block(32, 5), *block(32, 4), *block(32, 3)]
    expected += [*block(8, 3), *block(5, 3), *block(4, 3), *profit_block(3, 3)]
    assert rows(build_phases(config)) == expected


def test_profit_acts_at_another_width_if_asked():
    """Freezing is lifted at the next one."""
    config = RunConfig(profit=ProfitConfig(at_bits=5))
    assert rows(build_phases(config)) == [*PAPER[:13], *profit_block(5, 4), *block(4, 4)]


def test_any_shares_can_be_frozen():
    """One stage each after the first."""
    shares = (Fraction(1, 8), Fraction("0.5"))
    config = RunConfig(weight_bits=(4,), activation_bits=(4,), profit=ProfitConfig(fractions=shares))
    assert rows(build_phases(config))[4:] == profit_block(4, 4, ["1/8", "1/2"])


def test_without_profit_the_same_phases_run_with_nothing_frozen():
    """The control: equal in kinds, widths and epochs."""
    control = rows(build_phases(replace(load_recipe("imagenet-mobilenet-v2"), method="none")))
    assert control == [(*row[:3], "0", row[4]) for row in PAPER]


def test_the_float_control_has_the_epochs_of_a_quantized_run():
    """Every width 32, kinds and epochs the same, nothing frozen."""
    widths = (32, 32, 32)
    control = RunConfig(weight_bits=widths, activation_bits=widths, keep_phases=True)
    assert rows(build_phases(control)) == CONTROL


def test_the_float_control_on_the_command_line(capsys: pytest.CaptureFixture[str]):
    """One 32 stands for as many widths as the recipe has."""
    options = ["--weight-bits", "32", "--activation-bits", "32", "--keep-phases"]
    main(["plan", "imagenet-mobilenet-v2", "--json", *options])
    assert [tuple(phase.values()) for phase in json.loads(capsys.readouterr().out)] == CONTROL


def test_a_float_width_has_no_phases_otherwise():
    """Weights or activations alone can be quantized."""
    assert without_epochs(rows(build_phases(RunConfig(weight_bits=(32,))))) == without_epochs(PAPER[:10])
    weights_only = rows(build_phases(RunConfig(activation_bits=(32,))))
    assert without_epochs(weights_only) == [("float", 32, 32, "0")] + [(row[0], row[1], 32, row[3]) for row in PAPER[10:]]


def test_the_demo_ends_with_a_snap_phase():
    """After the paper's phases, at the last widths, nothing frozen; a float network has no constants to snap."""
    config = load_recipe("digits")
    plan = rows(build_phases(config))
    assert without_epochs(plan) == [*without_epochs(PAPER), ("snap", 4, 4, "0")]
    assert (len(plan), sum(row[4] for row in plan)) == (23, 59)
    assert rows(build_phases(replace(config, snap=False))) == plan[:-1]
    schedule = replace(config.schedule, snap_epochs=3)
    assert rows(build_phases(replace(config, schedule=schedule))) == [*plan[:-1], ("snap", 4, 4, "0", 3)]
    for widths in ({"weight_bits": (32,)}, {"activation_bits": (32,)}):
        assert not any(row[0] == "snap" for row in rows(build_phases(replace(config, **widths))))
    control = replace(config, weight_bits=(32,) * 3, activation_bits=(32,) * 3, keep_phases=True)
    assert without_epochs(rows(build_phases(control))) == without_epochs(CONTROL)


def test_phases_without_epochs_are_left_out():
    """Each kind by its own number."""
    schedule = ScheduleConfig(float_epochs=0, stabilize_epochs=0, finetune_epochs=2, sample_epochs=1)
    plan = rows(build_phases(RunConfig(weight_bits=(4,), activation_bits=(4,), schedule=schedule)))
    assert plan == [
        ("finetune", 32, 4, "0", 2),
        ("sample", 4, 4, "0", 1),
        ("finetune", 4, 4, "0", 2),
        ("finetune", 4, 4, "1/3", 2),
        ("finetune", 4, 4, "2/3", 2),
    ]


def test_freezing_needs_sampling():
    """Said before anything trains, not when the first layer is to be frozen; the control needs none."""
    config = RunConfig(schedule=ScheduleConfig(sample_epochs=0))
    with pytest.raises(ValueError, match=r"schedule.sample_epochs: 0 .*--method none"):
        build_phases(config)
    assert len(build_phases(replace(config, method="none"))) == 21
    assert len(build_phases(replace(config, weight_bits=(32,)))) == 10


def test_a_plan_has_an_epoch():
    """Nothing to train is an error."""
    schedule = ScheduleConfig(float_epochs=0)
    with pytest.raises(ValueError, match="schedule: no phase has an epoch"):
        build_phases(RunConfig(weight_bits=(32,), activation_bits=(32,), schedule=schedule))


def test_widths_have_a_name():
    """Activations first."""
    assert Phase(kind="finetune", weight_bits=32, activation_bits=4, epochs=1).widths == "A4W32"
