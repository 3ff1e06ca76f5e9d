"""The arguments of commands that take a recipe: its name first, then any of its fields as an option."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Annotated

import tyro

from subfour.ops import FLOAT_BITS
from subfour.profit.config import RunConfig
from subfour.profit.continuation import config_of, continued
from subfour.profit.unread import ignored_fields, refused_fields
from subfour.recipes import RECIPES, load_recipe, paper_variant

logger = logging.getLogger(__name__)

RecipeOptions = Annotated[RunConfig, tyro.conf.arg(name="")]
"""A configuration whose fields are options of the command itself."""

SMALLEST_IMAGE = 8
"""In pixels: the side of the smallest images of any source of ours, the digits as they are stored."""


def split_recipe(arguments: Sequence[str], usage: str) -> tuple[RunConfig, list[str]]:
    """Return the recipe named first, and the options after it; where help is asked for instead, print it and exit.

    `--recipe paper` among the options stands for the same network with the paper's schedule. With `--from` and no name, the
    configuration of the run that goes on takes the recipe's place.

    Args:
        arguments: of the command.
        usage: how the command is called, the first line with RECIPE.

    Raises:
        ValueError: no recipe is named, or there is none of that name, or no run to continue.
    """
    words = list(arguments)
    names = "\n  ".join([*RECIPES, "path.py:function"])
    if words[:1] in (["-h"], ["--help"]):
        print(f"usage: {usage}\n\nrecipes:\n  {names}\n\nEvery field of a recipe is an option; RECIPE --help lists them.")
        sys.exit(0)
    words = [part for word in words for part in (word.split("=", 1) if word.startswith(("--recipe=", "--from=")) else [word])]
    if words and words[0].startswith("-") and "--from" in words[:-1]:
        earlier = config_of(words[words.index("--from") + 1])
        return replace(earlier, from_run=None, starting_weight_bits=FLOAT_BITS, keep_phases=False), words
    if not words or words[0].startswith("-"):
        raise ValueError(f"recipe: name one before any option: {usage.splitlines()[0]}; there are {', '.join(RECIPES)}")
    name, words = words[0], words[1:]
    if "--recipe" in words:
        place = words.index("--recipe")
        asked = words[place : place + 2]
        if asked[1:] != ["paper"]:
            raise ValueError(f"recipe: {' '.join(asked)} is not possible; use --recipe paper, or name another recipe first")
        name, words = paper_variant(name), words[:place] + words[place + 2 :]
    return load_recipe(name), words


def resolved(config: RunConfig, recipe: RunConfig) -> RunConfig:
    """Return the configuration with what only the recipe knows.

    `keep_phases` repeats a lone 32 for each of the recipe's widths, unless an earlier run has passed them. The recipe's image
    size, which nobody asked for, gives way to that of a run that goes on.

    What nobody can mean is refused here, not in the configuration, which must be able to read what earlier runs were given.

    Raises:
        ValueError: other weights than the recipe's are asked for, and those of an earlier run too; or a seed or an image size
            that cannot be meant.
    """
    if config.seed < 0:
        raise ValueError(f"seed: {config.seed} is not possible; use 0 or more")
    if config.loading.image_size is not None and config.loading.image_size < SMALLEST_IMAGE:
        raise ValueError(
            f"loading.image_size: {config.loading.image_size} is not possible; use {SMALLEST_IMAGE} pixels or more, such as 32"
        )
    if config.from_run is not None and config.weights != recipe.weights:
        raise ValueError(f"weights: {config.weights!r} is not read with --from {config.from_run}, which has its own; give one")
    if config.from_run is not None and config.loading.image_size == recipe.loading.image_size:
        config = replace(config, loading=replace(config.loading, image_size=None))
    for field, reason in refused_fields(config):
        asked, preset = _value(config, field), _value(recipe, field)
        if asked != preset:
            raise ValueError(f"{field}: {asked!r} is not read {reason}; leave it out")
    if not config.keep_phases:
        return config
    if FLOAT_BITS not in config.weight_bits + config.activation_bits:
        raise ValueError("keep_phases: no width is 32, so that there are no float phases to keep; leave it out")
    if config.from_run is not None:
        return config

    def repeated(widths: tuple[int, ...], like: tuple[int, ...]) -> tuple[int, ...]:
        return widths * len(like) if widths == (FLOAT_BITS,) else widths

    return replace(
        config,
        weight_bits=repeated(config.weight_bits, recipe.weight_bits),
        activation_bits=repeated(config.activation_bits, recipe.activation_bits),
    )


def continuing(config: RunConfig, recipe: RunConfig) -> RunConfig:
    """Return the configuration of a run that goes on from another one: its data too, where nobody asked for others.

    Raises:
        ValueError: see `continued`.
    """
    run = config.from_run
    assert run is not None
    if config.data == recipe.data:
        config = replace(config, data=config_of(run).data)
    return continued(config, run)


def warn_of_what_is_not_read(config: RunConfig, asked: RunConfig, recipe: RunConfig, image_size: int) -> None:
    """Say what a run does not do as its command reads: options of phases that it has not, and the recipe's data and image size.

    They are no mistake, where several runs are given the same options, so nothing is refused.

    Args:
        config: of the run.
        asked: as the command has it.
        recipe: that it began with.
        image_size: that it trains at.
    """
    if config.data != asked.data:
        logger.warning("data: %s, as in %s, and not the recipe's %s", config.data, config.from_run, asked.data)
    asked_size = asked.loading.image_size
    if asked_size not in (None, image_size):
        logger.warning("loading.image_size: %s, as in %s, and not the recipe's %s", image_size, config.from_run, asked_size)
    for why, names in ignored_fields(config).items():
        for field in names:
            value = _value(config, field)
            if value != _value(recipe, field):
                logger.warning(
                    "%s: %s is not read %s", field, " ".join(map(str, value)) if isinstance(value, tuple) else value, why
                )


def _value(config: RunConfig, field: str) -> object:
    return attrgetter(field)(config)
