"""Recipes: functions that return a `RunConfig`.

A name stands for a network and data with the best schedule that we know; CHANGELOG.md says when that changed, and a run keeps its
whole configuration. The paper's schedule has a name of its own.
"""

import difflib
import runpy
from collections.abc import Callable
from pathlib import Path

from subfour.profit.config import RunConfig
from subfour.recipes.cifar10 import cifar10_mobilenet_v2, cifar10_mobilenet_v3_small
from subfour.recipes.digits import digits
from subfour.recipes.imagenet import imagenet_mobilenet_v1, imagenet_mobilenet_v2, imagenet_mobilenet_v3_large
from subfour.recipes.paper import SUFFIX, with_paper_schedule

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "digits": digits,
    "cifar10-mobilenet-v2": cifar10_mobilenet_v2,
    "cifar10-mobilenet-v3-small": cifar10_mobilenet_v3_small,
    "digits-paper": lambda: with_paper_schedule(digits(), batch_size=64),
    "cifar10-mobilenet-v2-paper": lambda: with_paper_schedule(cifar10_mobilenet_v2()),
    "cifar10-mobilenet-v3-small-paper": lambda: with_paper_schedule(cifar10_mobilenet_v3_small()),
    "imagenet-mobilenet-v1": imagenet_mobilenet_v1,
    "imagenet-mobilenet-v2": imagenet_mobilenet_v2,
    "imagenet-mobilenet-v3-large": imagenet_mobilenet_v3_large,
}


def paper_variant(name: str) -> str:
    """Return the recipe that trains the network of another as the paper does; those for ImageNet do.

    Raises:
        ValueError: there is none.
    """
    if f"{name}{SUFFIX}" in RECIPES:
        return f"{name}{SUFFIX}"
    if name not in RECIPES:
        raise ValueError(f"recipe: {name} has no schedule of the paper's; those of {', '.join(RECIPES)} have")
    return name


def load_recipe(name: str) -> RunConfig:
    """Return the configuration of a recipe.

    Args:
        name: one of `RECIPES`, or `path.py:function` for a recipe of the user's own, which is Python code and is run.

    Raises:
        ValueError: there is no such recipe, file or function.
    """
    if name in RECIPES:
        return RECIPES[name]()
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        if not Path(path).is_file():
            raise ValueError(f"recipe: there is no file {path}")
        try:
            make = runpy.run_path(path).get(function)
            config = make() if callable(make) else None
        except Exception as error:  # whatever is wrong in the user's own code
            raise ValueError(f"recipe: {path} fails: {type(error).__name__}: {error}") from error
        if not isinstance(config, RunConfig):
            raise ValueError(f"recipe: {path} has no function {function!r} that returns a RunConfig")
        return config
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(RECIPES)}, or path.py:function"
    raise ValueError(f"recipe: there is no recipe {name!r}; {hint}")
