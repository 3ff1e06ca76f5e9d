import dataclasses
import json
import re
from fractions import Fraction
from typing import Any

import pytest

from subfour.cli.main import main
from subfour.models.zoo import Architecture
from subfour.profit.config import (
    AverageConfig,
    DistillConfig,
    LoadingConfig,
    OscillationConfig,
    ProfitConfig,
    RunConfig,
    ScheduleConfig,
)
from subfour.recipes import RECIPES, load_recipe

NAN, INFINITY = float("nan"), float("inf")

HIDDEN = {"--recipe", "--starting-weight-bits"}
"""Fields that follow from others: the command's RECIPE, and --from."""


def through_json(config: RunConfig) -> RunConfig:
    return RunConfig.from_json(json.loads(json.dumps(config.to_json())))


def option_names(part: Any, prefix: str = "--") -> list[str]:
    """Return the option of every field, parts of parts included."""
    names = []
    for entry in dataclasses.fields(part):
        value, name = getattr(part, entry.name), prefix + entry.name.replace("_", "-")
        names += option_names(value, f"{name}.") if dataclasses.is_dataclass(value) else [name]
    return names


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name: str):
    """Equal, types included: a run resumes with exactly what it was told."""
    config = load_recipe(name)
    assert through_json(config) == config
    assert isinstance(through_json(config).profit.fractions[0], Fraction)


def test_what_no_recipe_sets_survives_json_too():
    """Fractions, None where there was a value, and the other way round."""
    config = RunConfig(
        weight_bits=(8, 4, 3, 2),
        profit=ProfitConfig(fractions=(Fraction(1, 7), Fraction("0.55")), at_bits=3, covers="weights+ranges", corrected=False),
        architecture=Architecture(width=0.5, strides=(1, 2, 2), dropout=0.1),
        schedule=ScheduleConfig(float_lr=0.3, float_sizes=(Fraction(3, 4), Fraction(1)), max_steps=7, warmup_epochs=0.5),
        average=AverageConfig(decay=None),
        from_run="runs/digits",
        starting_weight_bits=4,
    )
    assert through_json(config) == config


def test_every_field_is_an_option_with_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Tyro leaves out types that it does not know, such as Fraction, without a word."""
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as exit_info:
        main(["train", "digits", "--help"])
    assert exit_info.value.code == 0
    shown = {option.replace(".no-", ".") for option in re.findall(r"--[a-z][a-z.-]*", capsys.readouterr().out)}
    plain = re.compile(r"--parallel\.(precision|accumulate)")  # these two have no prefix
    fields = {plain.sub(r"--\1", name).replace("--from-run", "--from") for name in option_names(load_recipe("digits"))}
    assert fields - shown == HIDDEN
    assert len(fields) > 45


def test_options_reach_the_plan(capsys: pytest.CaptureFixture[str]):
    """Fractions and widths as they are written on the command line."""
    main(["plan", "digits", "--json", "--profit.fractions", "1/4", "0.5", "--weight-bits", "8", "3", "--activation-bits", "32"])
    plan = json.loads(capsys.readouterr().out)
    assert [(phase["weight_bits"], phase["frozen"]) for phase in plan if phase["frozen"] != "0"] == [(3, "1/4"), (3, "1/2")]
    assert {phase["activation_bits"] for phase in plan} == {32}


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        *((RunConfig, "weight_bits", widths) for widths in [(), (9,), (1,), (4, 8), (4, 4), (0,), (8, 33)]),
        *((RunConfig, "activation_bits", widths) for widths in [(), (9,), (4, 8), (8, 8)]),
        *((RunConfig, "skip_bits", value) for value in [0, 1, 9]),
        *((RunConfig, "calibration_batches", value) for value in [0, -1]),
        *((RunConfig, "refit_below_bits", value) for value in [-1]),
        *(
            (RunConfig, field, "other")
            for field in [
                "start",
                "quantizer",
                "weight_granularity",
                "batchnorm",
                "method",
                "padding",
                "engine",
                "activation_start",
            ]
        ),
        *((LoadingConfig, "image_size", value) for value in [0, -32]),
        (LoadingConfig, "augment", "other"),
        (LoadingConfig, "cutout", -1),
        (LoadingConfig, "workers", -1),
        (LoadingConfig, "unreadable", "other"),
        (LoadingConfig, "resize_size", 0),
        (LoadingConfig, "interpolation", "other"),
        *((LoadingConfig, "mean", value) for value in [(0.5,), (0.5, 0.5, 1.5), (0.5, 0.5, NAN)]),
        *((LoadingConfig, "std", value) for value in [(0.5,), (0.5, 0.5, 0.0), (0.5, 0.5, INFINITY)]),
        *((ScheduleConfig, "batch_size", value) for value in [0, -1]),
        *((ScheduleConfig, f"{kind}_epochs", -1) for kind in ["float", "finetune", "stabilize", "sample", "snap"]),
        *((ScheduleConfig, "warmup_epochs", value) for value in [-0.5, NAN, INFINITY]),
        *((ScheduleConfig, "lr", value) for value in [0.0, -0.1, NAN, INFINITY]),
        *((ScheduleConfig, "float_lr", value) for value in [0.0, -0.1, NAN]),
        *(
            (ScheduleConfig, "float_sizes", tuple(map(Fraction, shares)))
            for shares in [("1/2",), ("1", "1/2"), ("0", "1"), ("3/2", "1"), ("24", "32")]
        ),
        *((ScheduleConfig, "snap_lr", value) for value in [0.0, -0.1, NAN, INFINITY]),
        *((ScheduleConfig, "final_lr_scale", value) for value in [0.0, -0.1, NAN]),
        *((ScheduleConfig, "range_lr_scale", value) for value in [-0.1, NAN]),
        *((ScheduleConfig, "weight_decay", value) for value in [-0.1, NAN]),
        *((ScheduleConfig, "momentum", value) for value in [0.0, 1.0, -0.9, NAN]),
        *((ScheduleConfig, "max_steps", value) for value in [0, -1]),
        *((ScheduleConfig, "evaluations", value) for value in [0, -1]),
        (ScheduleConfig, "update", "other"),
        *(
            (ProfitConfig, "fractions", tuple(map(Fraction, shares)))
            for shares in [("0",), ("1",), ("4/3",), ("-1/3",), ("2/3", "1/3"), ("1/3", "1/3")]
        ),
        *((ProfitConfig, "decay", value) for value in [0.0, 1.0, NAN]),
        (ProfitConfig, "covers", "other"),
        *((ProfitConfig, "sample_stride", value) for value in [0, -1]),
        *((OscillationConfig, "dampening", value) for value in [-0.1, NAN, INFINITY]),
        *((OscillationConfig, f"threshold_{end}", value) for end in ["start", "end"] for value in [0.0, 1.0, NAN]),
        *((OscillationConfig, "momentum", value) for value in [0.0, 1.0, NAN]),
        *((DistillConfig, "weight", value) for value in [-1.0, NAN]),
        *((DistillConfig, "temperature", value) for value in [0.0, -1.0, NAN]),
        (DistillConfig, "teacher_mode", "other"),
        *((AverageConfig, "decay", value) for value in [0.0, 1.0, NAN]),
        (AverageConfig, "reestimate_batches", -1),
        *((Architecture, "width", value) for value in [0.0, -1.0, NAN, INFINITY]),
        (Architecture, "strides", (1, 0)),
        *((Architecture, "dropout", value) for value in [-0.1, 1.0, NAN]),
    ],
)
def test_a_value_that_is_not_allowed_is_named(part: type, field: str, value: object):
    """The field first, the value and what is allowed after it, whether it comes from Python or from JSON."""
    with pytest.raises(ValueError, match=rf"^(\w+\.)?{field}: .+"):
        part(**{field: value})
    data = RunConfig().to_json()
    sections = {LoadingConfig: "loading", ScheduleConfig: "schedule", ProfitConfig: "profit", DistillConfig: "distill"}
    sections |= {OscillationConfig: "oscillation", AverageConfig: "average", Architecture: "architecture"}
    written = [str(share) for share in value] if field in ("fractions", "float_sizes") else value
    (data[sections[part]] if part in sections else data)[field] = written
    with pytest.raises(ValueError, match=rf"^(\w+\.)?{field}: .+"):
        RunConfig.from_json(data)


def test_every_number_and_choice_has_a_bad_value_above():
    """Whoever adds one finds the list. Texts are checked where they are used, `at_bits` by the test below."""
    (mark,) = test_a_value_that_is_not_allowed_is_named.pytestmark
    tried = {(part, field) for part, field, _ in mark.args[1]}
    for part in {part for part, _ in tried}:
        for entry in dataclasses.fields(part):
            checked = entry.type not in (bool, str, str | None) and not dataclasses.is_dataclass(entry.type)
            if checked and entry.name not in ("seed", "at_bits", "from_run", "recipe", "starting_weight_bits"):
                assert (part, entry.name) in tried


def test_profit_acts_at_a_width_that_is_there():
    """Or the message shows which are."""
    assert RunConfig(weight_bits=(8, 4)).profit_bits == 4
    assert RunConfig(weight_bits=(8, 4), profit=ProfitConfig(at_bits=8)).profit_bits == 8
    with pytest.raises(ValueError, match=r"profit.at_bits: 5 is not among weight_bits \(8 4\)"):
        RunConfig(weight_bits=(8, 4), profit=ProfitConfig(at_bits=5))


@pytest.mark.parametrize("method", ["dampening", "iterative-freezing"])
def test_methods_that_move_single_weights_need_them_unfused(method: str):
    with pytest.raises(ValueError, match=f"batchnorm: fused is not possible with --method {method}"):
        RunConfig(batchnorm="fused", method=method)


@pytest.mark.parametrize("quantizer", ["pact-sawb", "dsq", "affine", "uniq"])
def test_a_quantizer_without_ranges_per_channel_is_named(quantizer: str):
    """With those that have them."""
    with pytest.raises(ValueError, match=f"weight_granularity: {quantizer} has no .* duq or duq-offset or lsq or lsq-plus"):
        RunConfig(quantizer=quantizer, weight_granularity="channel")


def test_a_configuration_from_before_the_methods_against_oscillations_is_read():
    """Committed model files hold such."""
    data = RunConfig().to_json()
    for name in ("oscillation", "weight_granularity", "batchnorm", "start", "skip_bits"):
        del data[name]
    assert RunConfig.from_json(data) == RunConfig()


def test_the_float_control_repeats_a_width():
    """And only it may."""
    assert RunConfig(weight_bits=(32, 32), activation_bits=(32, 32), keep_phases=True).weight_bits == (32, 32)
    with pytest.raises(ValueError, match="weight_bits: 32 32 must fall"):
        RunConfig(weight_bits=(32, 32))


def damaged(**changes: object) -> dict[str, Any]:
    return RunConfig().to_json() | changes


@pytest.mark.parametrize(
    "data",
    [
        {},
        damaged(newer_field=1),
        damaged(schedule=3),
        damaged(schedule={}, average=None),
        damaged(schedule={"learning_rate": 0.1}),
        damaged(schedule={"lr": "fast"}),
        damaged(weight_bits=4),
        damaged(weight_bits=["four"]),
        damaged(profit={"fractions": ["1/0"]}),
        damaged(profit={"fractions": ["a third"]}),
    ],
)
def test_what_is_no_configuration_is_a_value_error(data: dict[str, Any]):
    """Whatever is wrong with it."""
    with pytest.raises(ValueError, match=r".+"):
        RunConfig.from_json(data)


@pytest.mark.parametrize("other", [{"quantizer": "lsq"}, {"batchnorm": "fused"}, {"skip_bits": 8}])
def test_the_folded_engine_cannot_be_forced_where_it_does_not_apply(other: dict[str, Any]):
    """Left to itself the plain path is taken."""
    assert not RunConfig(**other).foldable
    with pytest.raises(ValueError, match=r"^engine: folded needs --quantizer duq"):
        RunConfig(engine="folded", **other)


def test_a_configuration_from_before_engines_is_read_as_it_ran():
    data = RunConfig().to_json()
    del data["engine"], data["profit"]["sample_stride"]
    assert RunConfig.from_json(data) == RunConfig(engine="plain")
    assert RunConfig.from_json(data).profit.sample_stride == 1


def test_a_field_that_no_longer_exists_does_not_keep_a_finished_run_from_being_read():
    """An unfinished one of another interval has another digest, and is refused when it is resumed."""
    data = RunConfig().to_json()
    data["profit"]["sample_every"] = 2
    assert RunConfig.from_json(data) == RunConfig()
    data["sample_every"] = 2
    with pytest.raises(ValueError, match="config: 'sample_every' is no field"):
        RunConfig.from_json(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_bits": (32, 8), "profit": ProfitConfig(at_bits=32)}, "profit.at_bits: 32 is float, where nothing is frozen"),
        ({"snap": True, "schedule": ScheduleConfig(snap_epochs=0)}, "schedule.snap_epochs: 0 leaves the snap phase out"),
        (
            {"quantizer": "pact-sawb", "weight_bits": (8, 6, 4)},
            "weight_bits: pact-sawb knows nothing of 6 bits; choose from 2, 3,",
        ),
        ({"skip_bits": 8, "activation_bits": (32,)}, "skip_bits: 8 is below 32, the last of activation_bits"),
        ({"skip_bits": 3, "activation_bits": (8, 4)}, "skip_bits: 3 is below 4, the last of activation_bits"),
        ({"skip_bits": 8, "method": "data-free"}, "skip_bits: 8 needs ranges that --method data-free does not set; use 32"),
        *(
            (
                {"quantizer": name, "profit": ProfitConfig(covers=covers)},
                f"profit.covers: {re.escape(covers)} cannot stop the .+ {name}",
            )
            for name in ("affine", "uniq")
            for covers in ("weights+ranges", "weights+ranges+batchnorm")
        ),
        ({"teacher": "none", "teacher_weights": "a.pth"}, "teacher_weights: 'a.pth' is not read with --teacher none"),
        ({"teacher": "self", "teacher_weights": "a.pth"}, "teacher_weights: 'a.pth' is not read with --teacher self"),
    ],
)
def test_what_would_be_ignored_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        RunConfig(**changes)
