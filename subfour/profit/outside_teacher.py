"""A teacher that is not the network itself: built anew whenever a run goes on, so that it must be the one of its beginning."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from subfour.models.zoo import build_model
from subfour.profit.config import RunConfig
from subfour.profit.data_record import DataRecord
from subfour.tensor_file import digest
from subfour.train.distill import Teacher, renormalization

if TYPE_CHECKING:
    from subfour.profit.session import Session

TEACHER = "teacher"
"""Name in data.json of the digest of its weights."""


def outside_teacher(config: RunConfig, data: DataRecord, device: torch.device) -> Teacher | None:
    """Return the teacher of a run; None for a run without, or one that teaches itself.

    Raises:
        ValueError: it is not known, or its weights do not fit the classes.
    """
    if config.teacher == "self" or not config.teaches:
        return None
    try:
        built = build_model(config.teacher, num_classes=len(data.classes), weights=config.teacher_weights, rehead=False)
    except ValueError as error:
        raise ValueError(
            f"teacher: {error}; it must know the {len(data.classes)} classes of the data: use --teacher self, or name its "
            "weights with --teacher-weights"
        ) from None
    network = built.model.to(memory_format=torch.channels_last).to(device)
    own = data.preprocessing
    theirs = built.preprocessing or own
    return Teacher(
        network,
        mode=config.distill.teacher_mode,
        renormalize=renormalization(own.mean, own.std, theirs.mean, theirs.std),
    )


def teacher_digest(session: "Session") -> str | None:
    """Return a digest of the teacher's weights; None where there is no such teacher."""
    if session.outside_teacher is None:
        return None
    state = session.outside_teacher.network.state_dict()
    return digest({name: value.cpu().contiguous() for name, value in state.items()}, {})


def check_teacher(session: "Session", there: Mapping[str, Any], run: str) -> None:
    """Check that the teacher is that of a record; older records hold nothing of it.

    Args:
        session: of a run that goes on.
        there: content of its data.json.
        run: its directory, for the message.

    Raises:
        ValueError: its weights are others.
    """
    if there.get(TEACHER) not in (None, teacher_digest(session)):
        config = session.config
        raise ValueError(f"teacher_weights: {config.teacher_weights} are not those that taught when {run} began; bring them back")
