"""Images of a data set on the Hugging Face hub, or of a local folder that `datasets` can read."""

import logging
from pathlib import Path

from subfour.data.arrow import table_images
from subfour.data.images import ImageData


def load_hub(name: str) -> ImageData:
    """Return the images of `datasets.load_dataset(name)`; they stay on disk until they are asked for.

    Args:
        name: as the hub has it, with @CONFIGURATION behind it where the data set has several; or a local folder.

    Raises:
        ValueError: the data set cannot be loaded; see also `table_images`.
    """
    import datasets  # noqa: PLC0415 (slow to import, and only this source needs it)

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else each of its retries is told of
    try:
        path, _, configuration = (name, "", "") if Path(name).expanduser().is_dir() else name.partition("@")
        splits = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the network, the hub, a builder and a file may each fail in their own way
        reason = " ".join(str(error).split())
        raise ValueError(f"data: cannot load {name!r} through datasets ({reason}); check the name and the connection") from error
    local = Path(name).expanduser()
    caches = (Path(datasets.config.HF_CACHE_HOME), Path(datasets.config.HF_DATASETS_CACHE))
    folders = (local,) if local.is_dir() else caches
    return table_images({str(split): dataset.data.table for split, dataset in splits.items()}, f"hub:{name}", *folders)
