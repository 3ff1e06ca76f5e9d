"""A recipe of ours as the paper would train it, `--recipe paper`: its quantizers, widths, constants and 22 phases, on our data.

Source: as for the ImageNet recipes, whose quantizers and widths are the defaults of `RunConfig`. The float phase trains from
scratch, so it is the recipe's in length, rate and sizes; the batch is the recipe's too where an epoch has few of the
paper's 256.
"""

from dataclasses import replace

from subfour.profit.config import AverageConfig, ProfitConfig, RunConfig, ScheduleConfig

SUFFIX = "-paper"


def with_paper_schedule(recipe: RunConfig, *, batch_size: int = 256) -> RunConfig:
    """Return a recipe as the paper would train its network.

    Args:
        recipe: of ours.
        batch_size: of the schedule.
    """
    ours = recipe.schedule
    schedule = ScheduleConfig(
        batch_size=batch_size, float_epochs=ours.float_epochs, float_sizes=ours.float_sizes, float_lr=ours.float_lr, lr=0.04
    )
    return RunConfig(
        recipe=f"{recipe.recipe}{SUFFIX}",
        model=recipe.model,
        weights=recipe.weights,
        data=recipe.data,
        architecture=recipe.architecture,
        loading=replace(recipe.loading, cutout=0),
        schedule=schedule,
        profit=ProfitConfig(corrected=False),
        average=AverageConfig(decay=0.9997, restart=False, reestimate_batches=0),
    )
