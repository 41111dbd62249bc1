"""Vectors as files: ``.npy``, ``.safetensors`` or ``.parquet``.

The rows are in the order of the images. Their paths, a JSON list, stand beside a ``.npy`` (``<output>.paths.json``), as
the bytes of a second tensor ``paths`` in a ``.safetensors``, and in the column ``path`` of a ``.parquet``. In the first
two the rows stand as they are, after a header: they are written where they stay, and the header into its place at the
end. A ``.parquet`` is written from a stream.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference.unfinished import Rows
from resnet_zoo.weights.convert import header_bytes

ROW_GROUP = 1024
"""Rows of a parquet file's row group."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        num_rows: N.
        channels: C.
        num_path_bytes: Length of the JSON list of the N paths.
        metadata: Where the vectors come from; formats that hold text keep it.
        room: Bytes that the header takes.
    """

    num_rows: int
    channels: int
    num_path_bytes: int
    metadata: Mapping[str, str]
    room: int = 0


Header = Callable[[Contents], bytes]
"""Makes what stands before the rows; without room, as short as it can be."""


def header_for(output: Path) -> Header | None:
    """Return what makes the header of a file, by its suffix; ``None`` for one that `write_parquet` writes.

    Raises:
        ArgumentError: The suffix is not one of the formats, or pyarrow is missing.
    """
    headers: dict[str, Header | None] = {".npy": npy_header, ".safetensors": safetensors_header, ".parquet": None}
    suffix = output.suffix.lower()
    if suffix not in headers:
        raise ArgumentError(f"{output}: expected a path that ends in {', '.join(headers)}.")
    if suffix == ".parquet":
        _import_pyarrow()
    return headers[suffix]


def npy_header(contents: Contents) -> bytes:
    """Return the header of a numpy file: float32, (N, C). Numpy makes it equally long for every N."""
    file, shape = io.BytesIO(), (contents.num_rows, contents.channels)
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def safetensors_header(contents: Contents) -> bytes:
    """Return that of a safetensors file: ``embeddings``, float32 (N, C), and ``paths``, the bytes of a JSON list.

    By hand, because the library wants the whole in memory.
    """
    end, num_bytes = contents.num_rows * contents.channels * 4, contents.num_path_bytes
    header = {
        "__metadata__": dict(contents.metadata),
        "embeddings": {"dtype": "F32", "shape": [contents.num_rows, contents.channels], "data_offsets": [0, end]},
        "paths": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [end, end + num_bytes]},
    }
    return header_bytes(header, room=contents.room)


def complete(path: Path, header: bytes, tail: Path | None) -> None:
    """Write the header into the room before the rows of a file, and another file after them; flush all to disk."""
    with path.open("r+b") as file:
        file.write(header)
        if tail is not None:
            file.seek(0, os.SEEK_END)
            with tail.open("rb") as source:
                shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())


def write_parquet(contents: Contents, named_rows: Iterable[tuple[list[str], Rows]], path: Path) -> None:
    """Write a parquet file: ``path``, a string, and ``embedding``, a list of C float32.

    A byte of a path that is not UTF-8 is written as an escape, as in the JSON lists.
    """
    pa, parquet = _import_pyarrow()
    item = pa.list_(pa.float32(), contents.channels)
    schema = pa.schema([("path", pa.string()), ("embedding", item)], metadata=dict(contents.metadata))
    with parquet.ParquetWriter(path, schema) as writer:
        for paths, rows in _grouped(named_rows):
            names = [name.encode("utf-8", "backslashreplace").decode() for name in paths]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), contents.channels)
            writer.write_table(pa.table([pa.array(names, pa.string()), vectors], schema=schema))


def _grouped(rows: Iterable[tuple[list[str], Rows]]) -> Iterator[tuple[list[str], Rows]]:
    """Join small batches to row groups."""
    paths: list[str] = []
    blocks: list[Rows] = []
    for names, block in rows:
        paths += names
        blocks.append(block)
        if len(paths) >= ROW_GROUP:
            yield paths, np.concatenate(blocks)
            paths, blocks = [], []
    if paths:
        yield paths, np.concatenate(blocks)


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ArgumentError("Parquet files need pyarrow: pip install 'resnet-zoo[parquet]'.") from error
    return pyarrow, parquet
