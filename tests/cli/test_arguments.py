import dataclasses
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from subfour.cli.recipe_arguments import resolved
from subfour.cli.train import _new_directory
from subfour.profit.config import RunConfig
from subfour.recipes import RECIPES, load_recipe
from tests.cli.command import error, printed

SUPPRESSED = {"recipe", "starting_weight_bits"}
"""Fields that a command decides, not an option."""

UNPREFIXED = {"precision", "accumulate"}
"""Options without the name of their part."""


def options(part: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every option of a configuration and its value."""
    assert dataclasses.is_dataclass(part)
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            yield from options(value, f"{prefix}{field.name}.")
        elif field.name not in SUPPRESSED:
            section = "" if field.name in UNPREFIXED else prefix
            yield f"--{section}{'from' if field.name == 'from_run' else field.name.replace('_', '-')}", value


def shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def entries(text: str) -> dict[str, str]:
    """Return the text of a help by option, without frames and line breaks."""
    plain = re.sub(r"\s+", " ", re.sub(r"[│╭╮╰╯─]", " ", text))
    parts = re.split(r"(?<!,) (?=--[a-z])", plain)  # not between two names of an option
    return {name: part for part in parts for name in re.findall(r"(?:^|, )(--[a-z.-]+)", part)}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("command", ["train", "plan"])
def test_help_shows_every_field_with_what_it_means_and_the_recipes_own_value(command: str, recipe: str):
    shown_entries = entries(printed(command, recipe, "--help"))
    for option, value in options(load_recipe(recipe)):
        entry = shown_entries[option]
        assert f"(default: {shown(value)})" in entry
        assert re.search(r"[a-z]{2,} [a-z]{2,}", entry.partition("(default")[0]), f"{option} is not explained"


def test_help_shows_no_field_that_is_not_the_users():
    assert not any(f"--{name.replace('_', '-')}" in printed("train", "digits", "--help") for name in SUPPRESSED)


@pytest.mark.parametrize("words", [["train", "digits"], ["train"], ["inspect"], ["evaluate"], ["sensitivity"], []])
def test_help_fits_80_columns(words: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, printed(*words, "--help").splitlines())) <= 80


def test_help_of_a_command_names_the_recipes_and_how_to_resume():
    text = printed("train", "--help")
    assert all(f"\n  {recipe}\n" in text for recipe in RECIPES)
    assert "subfour train --resume RUN" in text


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--shedule.lr", "--schedule.lr"),
        ("--lr", "--schedule.lr"),
        ("--batchsize=3", "--schedule.batch-size"),
        ("--max-steps", "--schedule.max-steps"),
        ("--weights-bits", "--weight-bits"),
        ("--profit.at_bit", "--profit.at-bits"),
    ],
)
def test_an_unknown_option_suggests_the_near_one(word: str, near: str):
    assert error("plan", "digits", word, "3") == f"option: there is no {word.partition('=')[0]}; did you mean {near}?"


def test_an_unknown_option_that_is_near_none_points_to_the_help():
    assert error("plan", "digits", "--xyzzy") == "option: there is no --xyzzy; see subfour plan digits --help"


def test_a_word_too_many_is_named():
    assert error("plan", "digits", "foo") == "argument: 'foo' is one too many; see subfour plan digits --help"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--schedule.lr", "fast"], "--schedule.lr: could not convert string to float: 'fast'; write --schedule.lr FLOAT"),
        (["--schedule.lr"], "Missing value for argument '--schedule.lr'"),
        (["--schedule.max-steps", "x"], "--schedule.max-steps: no type matching"),
        (["--weight-bits", "x"], "--weight-bits: Could not find valid parse for arguments: ['x']; write --weight-bits [2..8|32"),
        (["--quantizer", "dq"], "invalid choice 'dq' for argument '--quantizer'. Expected one of ('duq', 'duq-offset',"),
        (["--weight-bits", "9"], "weight_bits: 9 bits is not possible; choose from 2..8, or 32 for float"),
        (["--activation-bits", "1"], "activation_bits: 1 bits is not possible"),
        (["--weight-bits"], "weight_bits: no width given"),
        (["--weight-bits", "4", "8"], "weight_bits: 4 8 must fall"),
        (["--profit.at-bits", "9"], "profit.at_bits: 9 is not among weight_bits (8 5 4); name one of them, or add it to these"),
        (["--seed", "-1"], "seed: -1 is not possible; use 0 or more"),
        (["--loading.image-size", "1"], "loading.image_size: 1 is not possible; use 8 pixels or more, such as 32"),
        (["--profit.fractions", "1/0"], "--profit.fractions: Could not find valid parse for arguments: ['1/0']"),
        (["--profit.fractions", "4/3"], "profit.fractions: 4/3 must rise and lie between 0 and 1"),
        (["--schedule.momentum", "3"], "schedule.momentum: 3.0 is not possible; use a number between 0 and 1"),
        (["--architecture.width", "0"], "architecture.width: 0.0 is not possible"),
        (["--schedule.sample-epochs", "0"], "schedule.sample_epochs: 0 leaves nothing to choose layers by"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_that_names_the_option(words: list[str], line: str, encoding: str):
    """Whatever the terminal can show: tyro draws its boxes in another way where there is no UTF-8."""
    assert error("plan", "digits", *words, encoding=encoding).startswith(line)


def test_an_unknown_recipe_suggests_the_near_one():
    assert error("plan", "dgits") == "recipe: there is no recipe 'dgits'; did you mean digits?"
    assert error("train", "imagenet-mobilenetv2").endswith("did you mean imagenet-mobilenet-v2?")


def test_a_plan_is_of_a_network_that_exists() -> None:
    line = error("plan", "digits", "--model", "torchvision/mobilnet_v2")
    assert line.startswith("model: 'torchvision/mobilnet_v2' is not known; did you mean torchvision/mobilenet_v2")


@pytest.mark.parametrize("words", [[], ["--json", "digits"]])
def test_the_recipe_comes_first(words: list[str]):
    assert error("plan", *words).startswith(
        "recipe: name one before any option: subfour plan RECIPE [options]; there are digits,"
    )


def test_a_recipe_of_the_users_own_is_a_function_in_a_file(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text("from subfour.recipes import load_recipe\ndef mine(): return load_recipe('digits')\n")
    assert printed("plan", f"{file}:mine") == printed("plan", "digits")
    assert error("plan", f"{file}:yours").endswith("has no function 'yours' that returns a RunConfig")


@pytest.mark.parametrize(
    ("recipe", "word"), [("digits", "--average.no-restart"), ("imagenet-mobilenet-v2", "--average.no-restart")]
)
def test_a_switch_may_be_set_to_what_it_is(recipe: str, word: str):
    assert printed("plan", recipe, word, "--no-keep-phases") == printed("plan", recipe)


def test_default_options_are_those_of_the_configuration():
    """The walk of this file misses none: it finds as many options as the configuration has fields."""
    assert len(list(options(RunConfig()))) == len(RunConfig().to_json().keys() - SUPPRESSED) + sum(
        len(value) - 1 for value in RunConfig().to_json().values() if isinstance(value, dict)
    )


def test_a_run_that_goes_on_keeps_its_image_size_unless_another_is_asked_for():
    """The recipe's own was meant for other images."""
    recipe = load_recipe("digits")
    assert resolved(recipe, recipe) == recipe
    going_on = replace(recipe, from_run="runs/mine")
    assert resolved(going_on, recipe).loading.image_size is None
    larger = replace(going_on, loading=replace(recipe.loading, image_size=48))
    assert resolved(larger, recipe).loading.image_size == 48


def test_runs_without_a_name_get_folders_of_their_own(here: Path):
    """Made at once, so that two that begin together do not meet."""
    made = [_new_directory("digits") for _ in range(3)]
    assert made == [Path("runs/digits"), Path("runs/digits-2"), Path("runs/digits-3")]
    assert all((here / folder).is_dir() for folder in made)
