"""A run directory as it is before anything trains: everything that resuming it, and reading it, will ask for."""

from pathlib import Path

from subfour.environment import ENVIRONMENT_FILE, environment
from subfour.profit.collapse import chance_top1
from subfour.profit.data_record import DATA_FILE
from subfour.profit.images_record import IMAGES, images_record
from subfour.profit.outside_teacher import TEACHER, teacher_digest
from subfour.profit.phases import build_phases
from subfour.profit.session import Session
from subfour.rundir import JSON, RunDirectory

CHANCE = "chance"
"""Name in data.json of what guessing reaches, in percent."""

PLAN_FILE = "plan.json"
"""The phases of a run."""


def begin_run(session: Session, out: Path) -> RunDirectory:
    """Make the folder of a new run.

    Args:
        session: what it trains, and on what.
        out: the folder.

    Raises:
        ValueError: the folder holds a run already, or is a file.
    """
    chance = chance_top1(session.validation.split.labels, len(session.data.classes))
    records: dict[str, JSON] = {
        ENVIRONMENT_FILE: environment(),
        PLAN_FILE: [phase.to_json() for phase in build_phases(session.config)],
        DATA_FILE: {**session.data.to_json(), IMAGES: images_record(session), TEACHER: teacher_digest(session), CHANCE: chance},
    }
    return RunDirectory.create(out, session.config.to_json(), records)
