"""Images in parquet files: one file per split, named after it, or several in the hub's names: train-00000-of-00002.parquet."""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from subfour.data.arrow import find_columns, table_images
from subfour.data.images import ImageData

SHARD = re.compile(r"(.+?)-(\d+)-of-(\d+)(?:-[0-9a-f]{16})?")
"""Stem of one of several files of a split, as the hub names them: split, number, how many."""


def load_parquet(path: str) -> ImageData:
    """Return the images of one .parquet file, or of every one in a folder; a file's stem names the split.

    The files of a split in several parts follow one another in the order of their numbers.

    Raises:
        ValueError: there is no such file or folder, a file cannot be read, or one of several is missing; see also `table_images`.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise ValueError(f"data: there is no {root}; give a .parquet file or a folder with train.parquet and validation.parquet")
    if root.is_file():
        return table_images({_split_of(root): _read(root)}, f"parquet:{path}", root.parent)
    splits: dict[str, list[Path]] = {}
    for file in sorted(root.glob("*.parquet")):
        splits.setdefault(_split_of(file), []).append(file)
    if not splits:
        raise ValueError(f"data: {root} holds no .parquet file; it should hold train.parquet and validation.parquet")
    return table_images({name: _joined(name, files) for name, files in splits.items()}, f"parquet:{path}", root)


def _split_of(file: Path) -> str:
    shard = SHARD.fullmatch(file.stem)
    return shard[1] if shard else file.stem


def _joined(split: str, files: Sequence[Path]) -> pa.Table:
    """Return the rows of all files of a split."""
    shards = [SHARD.fullmatch(file.stem) for file in files]
    places = [(int(shard[2]), int(shard[3])) if shard else (0, 1) for shard in shards]
    if sorted(places) != [(number, len(files)) for number in range(len(files))]:
        there = ", ".join(file.name for file in files)
        raise ValueError(f"data: {split} in {files[0].parent} is {there}; a split is one file, or all of {split}-NUMBER-of-COUNT")
    tables = [_read(file) for _, file in sorted(zip(places, files, strict=True))]
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise ValueError(f"data: the files of {split} in {files[0].parent} differ in their columns ({error})") from error


def _read(file: Path) -> pa.Table:
    try:
        schema = parquet.read_schema(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"data: {file} is not a parquet file ({error}); replace it") from error
    columns = list(find_columns(schema, str(file)))
    try:
        table = parquet.read_table(file, columns=columns, page_checksum_verification=True)
        table.validate(full=True)  # offsets that lead nowhere would be read as memory that is not there
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ValueError(f"data: {file} is damaged ({error}); replace it") from error
    return table
