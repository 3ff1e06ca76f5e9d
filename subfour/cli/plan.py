"""`subfour plan RECIPE [options]`: the phases, before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from subfour.cli.arguments import Switch, parse
from subfour.cli.console import make_console, print_json
from subfour.cli.recipe_arguments import RecipeOptions, continuing, resolved, split_recipe
from subfour.cli.tables import print_table
from subfour.models.zoo import check_known
from subfour.profit.phases import build_phases


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Print the phases of a recipe; every field of the recipe is an option."""

    config: RecipeOptions
    json: Switch = False
    """Print a JSON list."""


def run(arguments: Sequence[str]) -> None:
    """Print the phases of a recipe."""
    recipe, rest = split_recipe(arguments, "subfour plan RECIPE [options]")
    options = parse(PlanOptions, rest, prog=f"subfour plan {recipe.recipe}", default=PlanOptions(config=recipe))
    config = resolved(options.config, recipe)
    if config.from_run is not None:
        config = continuing(config, recipe)
    check_known(config.model)
    phases = build_phases(config)
    if options.json:
        print_json([phase.to_json() for phase in phases])
        return
    rows = [(index, *phase.to_json().values()) for index, phase in enumerate(phases, start=1)]
    title = f"{config.recipe}: {len(phases)} phases, {sum(phase.epochs for phase in phases)} epochs, {config.model}"
    print_table(make_console(), title, ("phase", "kind", "weight bits", "activation bits", "frozen", "epochs"), rows)
