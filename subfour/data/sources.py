"""One option string for every source of images.

    digits            handwritten digits that ship inside scikit-learn
    folder:PATH       image files in ImageNet's layout
    parquet:PATH      a .parquet file, or a folder with one per split
    hub:NAME          a data set of the Hugging Face hub; NAME@CONFIGURATION where it has several

The number of classes follows the data.
"""

from collections.abc import Callable
from difflib import get_close_matches

from subfour.data.digits import load_digits
from subfour.data.folder import load_folder
from subfour.data.hub import load_hub
from subfour.data.images import ImageData, Split, as_the_model_labels, evaluation_split
from subfour.data.parquet import load_parquet

DIGITS = "digits"

PLACED: dict[str, Callable[[str], ImageData]] = {"folder": load_folder, "parquet": load_parquet, "hub": load_hub}
"""Sources that take a place, written kind:place."""


def load_images(spec: str) -> ImageData:
    """Return the images of a source; nothing is decoded yet.

    >>> load_images("digits").classes
    ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')

    Raises:
        ValueError: the source is not known, or cannot be read.
    """
    if spec == DIGITS:
        return load_digits()
    kind, _, place = spec.partition(":")
    if kind not in PLACED or not place:
        near = get_close_matches(spec, (DIGITS,), n=1) or [
            f"{name}:{place or '...'}" for name in get_close_matches(kind, PLACED, n=1)
        ]
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"data: {spec!r} is not a source{hint}; use digits, folder:PATH, parquet:PATH or hub:NAME")
    return PLACED[kind](place)


def evaluation_images(spec: str, known: tuple[str, ...], split: str | None = None) -> Split:
    """Return the images of a source that a model is evaluated on, with the model's labels.

    Args:
        spec: see `load_images`.
        known: the model's classes.
        split: which one; None: the only one, else validation.

    Raises:
        ValueError: the source cannot be read, or has classes that the model does not know.
    """
    images = load_images(spec)
    return as_the_model_labels(evaluation_split(images, split), images.classes, known, spec)
