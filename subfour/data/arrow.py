"""Images in an Arrow table, in the Hugging Face layout: what a parquet file and a data set of the hub have in common.

The image column is a struct of `bytes` (an encoded file) and `path`, or the encoded files themselves; the label column holds
integers, or the classes' names. Which columns these are, and the names of integers, stand in the schema's "huggingface"
metadata. A path counts from the folder the data lie in and must stay in it, links resolved: a table from elsewhere does not
choose which files of this machine are read.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor

from subfour.data.images import TRAINING, ImageData, Split
from subfour.data.opening import open_image

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


@dataclass(frozen=True, eq=False)
class ArrowSplit(Split):
    """Rows of a table; images stay encoded until they are asked for."""

    name: str
    column: pa.ChunkedArray
    labels: Tensor
    folders: tuple[Path, ...]
    """Where the files that rows name must lie; their paths count from the first."""

    def open(self, index: int) -> Image.Image:
        """Open the encoded file, or the file its path names."""
        row = self.column[index].as_py() or {}
        if isinstance(row, bytes):
            return open_image(io.BytesIO(row))
        if row.get("bytes") is not None:
            return open_image(io.BytesIO(row["bytes"]))
        if row.get("path") is not None:
            file = (self.folders[0] / row["path"]).resolve()
            if not any(file.is_relative_to(folder.resolve()) for folder in self.folders):
                raise ValueError(f"its path {row['path']!r} leaves {self.folders[0]}")
            return open_image(file)
        raise ValueError("it has neither bytes nor path")

    def where(self, index: int) -> str:
        """Return the row."""
        return f"row {index} of {self.name}"


def find_columns(schema: pa.Schema, name: str) -> tuple[str, str]:
    """Return the names of the image and the label column.

    They are found by feature type (Image, ClassLabel), and where that does not decide, by the usual names.

    Raises:
        ValueError: one of them cannot be found, or is of a type that cannot be read.
    """
    image = _find_column(schema, name, feature="Image", usual=IMAGE_COLUMNS)
    label = _find_column(schema, name, feature="ClassLabel", usual=LABEL_COLUMNS)
    kind = schema.field(image).type
    if not (pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"image column: {image!r} of {name} is {kind}; store encoded images, or a struct of bytes and path")
    kind = schema.field(label).type
    if not (pa.types.is_integer(kind) or _is_text(kind)):
        raise ValueError(f"label column: {label!r} of {name} is {kind}; store the classes as integers from 0, or their names")
    return image, label


def table_images(tables: Mapping[str, pa.Table], source: str, *folders: Path) -> ImageData:
    """Return the images of one table per split.

    Args:
        tables: by name of the split.
        source: named in messages.
        *folders: where the files that rows name must lie; their paths count from the first.

    Raises:
        ValueError: see `find_columns`; or the tables' class names differ.
    """
    splits: dict[str, Split] = {}
    classes: dict[str, tuple[str, ...]] = {}
    columns = {name: find_columns(table.schema, f"{name} in {source}") for name, table in tables.items()}
    texts = {name: label for name, (_, label) in columns.items() if _is_text(tables[name].schema.field(label).type)}
    written = _written_classes({name: tables[name][label] for name, label in texts.items()}, source)
    numbered = [name for name in tables if name not in texts and not _names(tables[name], columns[name][1])]
    if texts and numbered:
        raise ValueError(f"classes: {next(iter(texts))} in {source} names them, {numbered[0]} numbers them; write names in all")
    for name, table in tables.items():
        image, label = columns[name]
        labels = _positions(table[label], written) if name in texts else _integers(table[label])
        splits[name] = ArrowSplit(name=f"{name} in {source}", column=table[image], labels=labels, folders=folders)
        if names := written if name in texts else _names(table, label):
            classes[name] = names
    if len(set(classes.values())) > 1:
        raise ValueError(f"classes: {' and '.join(classes)} in {source} have different class names; they must be the same")
    if classes:
        return ImageData(classes=next(iter(classes.values())), splits=splits)
    largest = max((int(split.labels.max()) for split in splits.values() if len(split)), default=-1)
    return ImageData(classes=tuple(str(label) for label in range(largest + 1)), splits=splits)


def _written_classes(columns: Mapping[str, pa.ChunkedArray], source: str) -> tuple[str, ...]:
    """Return the classes that are written out, sorted: those of the training images, where they are among the splits.

    Raises:
        ValueError: another split has one more.
    """
    found = {name: {str(value) for value in column.unique().to_pylist() if value is not None} for name, column in columns.items()}
    known = found.get(TRAINING, set().union(*found.values()))
    for name, there in found.items():
        if strange := sorted(there - known):
            raise ValueError(f"classes: {name} in {source} has {strange[0]!r}, and {TRAINING} has not; correct the label")
    return tuple(sorted(known))


def _positions(column: pa.ChunkedArray, classes: tuple[str, ...]) -> Tensor:
    """Return the label of each name, -1 where there is none."""
    return torch.tensor(pc.index_in(column.cast(pa.string()), pa.array(classes, pa.string())).fill_null(-1).to_numpy()).long()


def _integers(column: pa.ChunkedArray) -> Tensor:
    """Return labels as they are, -1 where there is none."""
    # Not safe: what int64 cannot hold becomes negative, and is then named as a label that is no class.
    return torch.tensor(column.cast(pa.int64(), safe=False).fill_null(-1).to_numpy())


def _names(table: pa.Table, label: str) -> tuple[str, ...]:
    """Return the names that the metadata give to the integers of a label column; none where they do not."""
    names = _features(table.schema).get(label, {}).get("names")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds names, each one written out or as the category that pandas makes of it."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _find_column(schema: pa.Schema, name: str, *, feature: str, usual: tuple[str, ...]) -> str:
    columns: list[str] = schema.names
    features = _features(schema)
    typed = [column for column in columns if features.get(column, {}).get("_type") == feature]
    if len(typed) == 1:
        return typed[0]
    for column in usual:
        if column in (typed or columns):
            return column
    raise ValueError(
        f"{usual[0]} column: {name} has the columns {', '.join(columns)}, and which one it is cannot be told; "
        f"name it {' or '.join(usual)}"
    )


def _features(schema: pa.Schema) -> dict[str, dict[str, object]]:
    """Return what the metadata say of each column; nothing where they are not what `datasets` writes."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {column: properties for column, properties in features.items() if isinstance(properties, dict)}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
