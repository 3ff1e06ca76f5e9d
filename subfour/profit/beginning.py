"""A run directory as it is before anything trains: everything that resuming it, and reading it, will ask for."""

from pathlib import Path

from subfour.environment import ENVIRONMENT_FILE, environment
from subfour.profit.data_record import DATA_FILE
from subfour.profit.images_record import IMAGES, images_record
from subfour.profit.phases import build_phases
from subfour.profit.session import Session
from subfour.rundir import JSON, RunDirectory

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
    records: dict[str, JSON] = {
        ENVIRONMENT_FILE: environment(),
        PLAN_FILE: [phase.to_json() for phase in build_phases(session.config)],
        DATA_FILE: {**session.data.to_json(), IMAGES: images_record(session)},
    }
    return RunDirectory.create(out, session.config.to_json(), records)
