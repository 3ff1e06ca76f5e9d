"""What computes a phase: the network that is evaluated and the one that trains, both around the session's parameters."""

from torch import nn

from subfour.engine.compiled import compiled_operations
from subfour.engine.folded import TORCH, folded_network
from subfour.integer.measure import Snapping
from subfour.integer.network import SnappedNetwork
from subfour.ops import FLOAT_BITS
from subfour.profit.phases import Phase
from subfour.profit.session import Session
from subfour.profit.state import RunState


def evaluated_network(session: Session, phase: Phase, state: RunState) -> nn.Module:
    """Return the session's model, or in the snap phase its snapped program.

    Args:
        session: its model has the phase's widths.
        phase: the present one.
        state: knows what snapping has measured, in the snap phase.
    """
    if phase.kind != "snap":
        return session.model
    assert state.snapping is not None
    return SnappedNetwork(session.model, session.data.preprocessing, Snapping.from_json(state.snapping))


def training_network(session: Session, phase: Phase, state: RunState) -> nn.Module:
    """Return what is evaluated, or where the engine folds the model's folded twin.

    Args:
        session: see `evaluated_network`.
        phase: the same.
        state: the same.
    """
    if session.engine == "plain" or phase.kind == "snap" or phase.activation_bits == FLOAT_BITS:
        return evaluated_network(session, phase, state)
    return folded_network(session.model, compiled_operations() if session.engine == "compiled" else TORCH)
