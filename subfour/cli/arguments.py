"""Command-line arguments from typed configurations: options come from the dataclasses, errors name the near option."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, TypeVar

import tyro

from subfour.profit.config import RunConfig
from subfour.recipes import RECIPES, load_recipe

Parsed = TypeVar("Parsed")

RecipeOptions = Annotated[RunConfig, tyro.conf.arg(name="")]
"""A configuration whose fields are options of the command itself."""


def parse(options: type[Parsed], arguments: Sequence[str], *, prog: str, default: Parsed | None = None) -> Parsed:
    """Return the options as a value of their class; prints help or an error and exits otherwise."""
    words = list(arguments)
    if default is None:
        return tyro.cli(options, args=words, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))
    return tyro.cli(options, args=words, prog=prog, default=default, config=(tyro.conf.FlagCreatePairsOff,))


def split_recipe(arguments: Sequence[str], command: str) -> tuple[RunConfig, list[str]]:
    """Return the recipe named first, and the options after it.

    Raises:
        ValueError: no recipe is named, or there is none of that name.
    """
    words = list(arguments)
    if words[:1] in (["-h"], ["--help"]):
        print(f"usage: subfour {command} RECIPE [options]\n\nrecipes: {', '.join(RECIPES)}, or path.py:function")
        print(f"\nEvery field of a recipe is an option: subfour {command} digits --help lists them with the recipe's values.")
        sys.exit(0)
    if not words or words[0].startswith("-"):
        raise ValueError(f"recipe: none given; write subfour {command} RECIPE, with RECIPE one of {', '.join(RECIPES)}")
    return load_recipe(words[0]), words[1:]


def resolved(config: RunConfig, recipe: RunConfig) -> RunConfig:
    """Return the configuration with what only the recipe knows: `keep_phases` means as many widths as the recipe has."""
    if not config.keep_phases:
        return config

    def repeated(widths: tuple[int, ...], like: tuple[int, ...]) -> tuple[int, ...]:
        return widths * len(like) if len(widths) == 1 else widths

    return replace(
        config,
        weight_bits=repeated(config.weight_bits, recipe.weight_bits),
        activation_bits=repeated(config.activation_bits, recipe.activation_bits),
    )
