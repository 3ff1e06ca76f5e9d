"""The images that a run began with, in its data.json: none may come or go before it is finished.

An image more gives every epoch another order, and an image less too, so what goes on would be another run.
"""

from collections.abc import Mapping
from typing import Any

from subfour.profit.session import Session

IMAGES = "images"
"""Name in data.json."""


def images_record(session: Session) -> dict[str, dict[str, Any]]:
    """Return how many images are trained and evaluated on, and a digest of their names and labels."""
    splits = {"training": session.training.split, "validation": session.validation.split}
    return {name: {"count": len(split), "digest": split.digest()} for name, split in splits.items()}


def check_images(session: Session, there: Mapping[str, Any], run: str) -> None:
    """Check that the images are those of a record; older records hold nothing of them.

    Args:
        session: of a run that goes on.
        there: content of its data.json.
        run: its directory, for the message.

    Raises:
        ValueError: images have come, gone, or changed name or label.
    """
    for name, now in images_record(session).items():
        before = there.get(IMAGES, {}).get(name, now)
        if before != now:
            counts = f"{now['count']} {name} images, {run} began with {before['count']}"
            same = " of other names or labels" if now["count"] == before["count"] else ""
            raise ValueError(f"data: {session.config.data} has {counts}{same}; bring them back, or start anew")
