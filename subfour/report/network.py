"""A look into the trained network of a run: what its quantizers meet, and which images it gets wrong.

The model file and the data are not part of the report's page and may be gone; then the page says so and goes on.
"""

import base64
import contextlib
import logging
from dataclasses import dataclass

from subfour.analysis.activations import Mistake, QuantizerSample, probe
from subfour.data.images import Split, Subset
from subfour.data.loader import EvaluationLoader
from subfour.data.preprocess import Preprocessing, evaluation_pixels
from subfour.data.sources import evaluation_images
from subfour.data.thumbnail import thumbnail
from subfour.profit.continuation import WEIGHTS_FILE
from subfour.profit.model_file import read_model
from subfour.profit.state_dict import load_model, read_tensors
from subfour.report.record import RunRecord

MOST_IMAGES = 300
"""Of the validation images, evenly spaced."""

MOST_MISTAKES = 12

BATCH_SIZE = 50

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MistakenImage:
    """A misclassified image to be shown."""

    png: str
    """Base64."""
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class NetworkLook:
    """What the network did with some images, or why nothing is known."""

    reason: str = ""
    """Why there is nothing; empty if there is."""
    samples: tuple[QuantizerSample, ...] = ()
    images: int = 0
    wrong: int = 0
    mistakes: tuple[MistakenImage, ...] = ()
    """The surest."""


def look(record: RunRecord) -> NetworkLook:
    """Run the network of a finished run over some validation images."""
    if record.status != "finished":
        return NetworkLook(reason="The run has no model yet: it is written when the last epoch is done.")
    try:
        trained = read_model(record.path)
        if not record.config.ends_float:
            load_model(
                trained.model, read_tensors(record.path / WEIGHTS_FILE)
            )  # the model file keeps codes, not what was rounded
        preprocessing, classes = trained.data.preprocessing, trained.data.classes
        images = evaluation_images(record.config.data, classes)
        chosen = Subset(images, _evenly_spaced(len(images), MOST_IMAGES))
        if record.config.loading.unreadable == "skip":  # here and not in the loader: mistakes are found by their place
            chosen = Subset(chosen, _readable(chosen, preprocessing))
        loader = EvaluationLoader(chosen, preprocessing, batch_size=BATCH_SIZE, workers=record.config.loading.workers)
        # What enters a quantizer is known of the model only, what a snapped network answers of its program only.
        found = probe(trained.model, loader, None if trained.snapping is None else trained.network)
    except (ValueError, OSError) as error:
        logger.warning("report: no look into the network: %s", error)
        return NetworkLook(reason=f"The network or its images cannot be read: {error}")
    return NetworkLook(
        reason="" if found.samples else _nothing_found(record),
        samples=tuple(found.samples),
        images=found.images,
        wrong=len(found.mistakes),
        mistakes=tuple(_shown(chosen, mistake, classes) for mistake in found.mistakes[:MOST_MISTAKES]),
    )


def _nothing_found(record: RunRecord) -> str:
    float_network = "Nothing is quantized in this network."
    return float_network if record.config.ends_float else "No quantizer of this network has one range for a whole tensor."


def _shown(images: Split, mistake: Mistake, classes: tuple[str, ...]) -> MistakenImage:
    return MistakenImage(
        png=base64.b64encode(thumbnail(images.image(mistake.index))).decode(),
        label=classes[mistake.label],
        predicted=classes[mistake.predicted],
        confidence=mistake.confidence,
    )


def _readable(images: Split, preprocessing: Preprocessing) -> list[int]:
    """Return the places of the images that can be read.

    Raises:
        ValueError: none can.
    """
    places = []
    for place in range(len(images)):
        with contextlib.suppress(ValueError):
            evaluation_pixels(images.image(place), preprocessing)
            places.append(place)
    if not places:
        raise ValueError(f"none of {len(images)} images can be read")
    return places


def _evenly_spaced(total: int, count: int) -> list[int]:
    """Return up to `count` places among `total`: images often come sorted by class."""
    count = min(total, count)
    return [place * total // count for place in range(count)]
