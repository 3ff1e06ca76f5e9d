"""What a training method may do in every step, and when: the interface of dampening and of iterative freezing.

Both act where PROFIT would: in all phases at the weight width `RunConfig.profit_bits`, up to snapping. This base does nothing,
as PROFIT and the control do in a step.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from subfour.ops import FLOAT_BITS
from subfour.profit.config import RunConfig
from subfour.profit.phases import Phase


class StepMethod:
    """Does nothing; a method overrides what it needs."""

    share_done: float | None = None
    """Share of its training that is done, 0 up to 1; None outside the phases where it acts."""

    def penalty(self) -> Tensor | float:
        """Return what is added to the loss, after the forward pass of this step."""
        return 0.0

    def after_update(self) -> None:
        """The optimizer has moved the weights, the average has not followed yet."""

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold, by name."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint."""


def share_done(config: RunConfig, phases: Sequence[Phase], *, phase: int, position: float) -> float | None:
    """Return the share of the epochs at PROFIT's width that is done; None in a phase at another width.

    Args:
        config: of the run.
        phases: of the run.
        phase: the index of the present one.
        position: epochs of it that are done, fractions included.
    """
    acting = [
        entry.epochs if entry.weight_bits == config.profit_bits != FLOAT_BITS and entry.kind != "snap" else 0 for entry in phases
    ]
    return (sum(acting[:phase]) + position) / sum(acting) if acting[phase] else None
