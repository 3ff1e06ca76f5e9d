"""Small images and data sets for the tests of `subfour.data`."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet
from torch import Tensor

from subfour.data.images import Split
from subfour.data.preprocess import Preprocessing

CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


def geometry(size: int, resize: int | None = None) -> Preprocessing:
    """Return preprocessing whose normalisation does nothing but divide by 255."""
    return Preprocessing(
        image_size=size, resize_size=resize or size, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(seed: int = 0, width: int = 12, height: int = 10) -> Image.Image:
    return Image.fromarray(noise(height, width, 3, seed=seed))


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class ArraySplit(Split):
    """RGB images [N, H, W, 3] in memory."""

    pixels: NDArray[np.uint8]
    labels: Tensor

    def open(self, index: int) -> Image.Image:
        """Return the image."""
        return Image.fromarray(self.pixels[index])

    def where(self, index: int) -> str:
        """Return its number."""
        return f"image {index}"


def array_split(count: int, size: int = 8) -> ArraySplit:
    """Return noise, each image labelled with its own index."""
    return ArraySplit(noise(count, size, size, 3), torch.arange(count))


def write_folder(
    root: Path, splits: Sequence[str] = ("train", "val"), classes: Sequence[str] = ("cat", "dog"), images: int = 2
) -> None:
    for split in splits:
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(images):
                picture(seed=10 * number + image).save(folder / f"{image}.png")


def write_parquet(
    file: Path,
    labels: Sequence[int | None] = (0, 1, 1),
    *,
    image_column: str = "image",
    label_column: str = "label",
    features: dict[str, object] | None = None,
    images: Sequence[bytes | None] | None = None,
) -> None:
    """Write a file in the Hugging Face layout; without `features` there is no metadata."""
    contents = [encoded(picture(seed)) for seed in range(len(labels))] if images is None else images
    table = pa.table(
        {
            image_column: pa.array(
                [{"bytes": content, "path": None} for content in contents], pa.struct({"bytes": pa.binary(), "path": pa.string()})
            ),
            label_column: pa.array(labels, pa.int64()),
        }
    )
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, file)


def typed_features(image: str = "image", label: str = "label", names: Sequence[str] = ("cat", "dog")) -> dict[str, object]:
    return {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": list(names)}}
