"""A recipe of ours with the paper's schedule, constants and 22 phases: same network, same data, `--recipe paper`.

Source: as for the ImageNet recipes. The float phase trains from scratch, so it is as long as the recipe's and starts at its rate;
the batch is the recipe's too where an epoch has few of the paper's 256.
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
    schedule = ScheduleConfig(
        batch_size=batch_size, float_epochs=recipe.schedule.float_epochs, float_lr=recipe.schedule.float_lr, lr=0.04
    )
    return replace(
        recipe,
        recipe=f"{recipe.recipe}{SUFFIX}",
        loading=replace(recipe.loading, cutout=0),
        schedule=schedule,
        profit=ProfitConfig(corrected=False),
        average=AverageConfig(decay=0.9997, restart=False, reestimate_batches=0),
        snap=False,
    )
