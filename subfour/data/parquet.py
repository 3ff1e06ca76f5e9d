"""Images in parquet files: one file per split, named after it."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from subfour.data.arrow import find_columns, table_images
from subfour.data.images import ImageData


def load_parquet(path: str) -> ImageData:
    """Return the images of one .parquet file, or of every one in a folder; a file's stem names the split.

    Raises:
        ValueError: there is no such file or folder, or a file cannot be read; see also `table_images`.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise ValueError(f"data: there is no {root}; give a .parquet file or a folder with train.parquet and validation.parquet")
    files = [root] if root.is_file() else sorted(root.glob("*.parquet"))
    if not files:
        raise ValueError(f"data: {root} holds no .parquet file; it should hold train.parquet and validation.parquet")
    folder = root.parent if root.is_file() else root
    return table_images({file.stem: _read(file) for file in files}, f"parquet:{path}", folder)


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
