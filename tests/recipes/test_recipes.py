"""Recipes are promises."""

import re
from pathlib import Path

import pytest

from subfour.profit.phases import build_phases
from subfour.recipes import RECIPES, load_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_known_by_its_own_name(name: str):
    assert load_recipe(name).recipe == name


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_the_method_s_phases(name: str):
    """22 where widths are the paper's; ours shorten the epochs, and end with one phase more, which trains no weight."""
    config = load_recipe(name)
    phases = build_phases(config)
    ours = not name.startswith("imagenet") and not name.endswith("-paper")
    method = phases[:-1] if ours else phases
    assert [phase.kind == "snap" for phase in phases] == [False] * len(method) + [True] * ours
    assert len(method) == {1: 10, 3: 22}[len(config.weight_bits)]
    assert config.activation_bits == config.weight_bits
    assert [str(phase.frozen) for phase in phases if phase.kind == "finetune"][-3:] == ["0", "1/3", "2/3"]


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("imagenet") or name.endswith("-paper")])
def test_the_paper_s_recipes_have_its_quantizers_and_widths(name: str):
    config = load_recipe(name)
    assert (config.quantizer, config.weight_bits, config.activation_start) == ("duq", (8, 5, 4), "percentile")
    assert not config.snap


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("imagenet")])
def test_imagenet_recipes_are_the_paper_s(name: str):
    """200 epochs at batch 256, ResNet-101 teacher, average 0.9997, ranges at a hundredth of the rate."""
    config = load_recipe(name)
    assert sum(phase.epochs for phase in build_phases(config)) == 200
    assert config.schedule.batch_size == 256
    assert config.teacher == "torchvision/resnet101"
    assert config.average.decay == 0.9997
    assert not config.average.restart
    assert config.schedule.range_lr_scale == 0.01
    assert config.weights == "pretrained"


def test_an_unknown_recipe_suggests_the_near_one():
    with pytest.raises(ValueError, match=r"no recipe 'digit'; did you mean digits\?"):
        load_recipe("digit")


def test_a_recipe_of_the_user_s_own_is_a_function_in_a_file(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text("from subfour.recipes import load_recipe\ndef mine():\n    return load_recipe('digits')\n")
    assert load_recipe(f"{file}:mine") == load_recipe("digits")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("from subfour.profit.config import RunConfig\ndef mine():\n    return RunConfig(batch_size=3)", "TypeError: "),
        ("def mine(:", "SyntaxError: "),
    ],
)
def test_what_is_wrong_in_a_recipe_of_the_user_s_own_is_said(text: str, why: str, tmp_path: Path):
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^recipe: {re.escape(str(file))} fails: {why}"):
        load_recipe(f"{file}:mine")


@pytest.mark.parametrize("name", ["missing.py:mine", "FILE:absent", "FILE:number"])
def test_a_file_without_such_a_function_is_named(name: str, tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text("def number():\n    return 3\n")
    with pytest.raises(ValueError, match=r"recipe: .*(no file|no function)"):
        load_recipe(name.replace("FILE", str(file)))
