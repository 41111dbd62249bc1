"""Vectors as files, written from a stream: ``.npy``, ``.safetensors`` or ``.parquet``.

The rows are in the order of the images. Their paths, a JSON list, stand beside a ``.npy`` (``<output>.paths.json``), as
the bytes of a second tensor ``paths`` in a ``.safetensors``, and in the column ``path`` of a ``.parquet``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference.unfinished import Rows

ROW_GROUP = 1024
"""Rows of a parquet file's row group."""


@dataclass(frozen=True)
class VectorSource:
    """What is to be written.

    Attributes:
        num_rows: N.
        channels: C.
        rows: Gives the stream of paths and float32 rows (n, C), from the start at every call.
        paths_json: A file with the JSON list of the N paths.
        metadata: Where the vectors come from; formats that hold text keep it.
    """

    num_rows: int
    channels: int
    rows: Callable[[], Iterator[tuple[list[str], Rows]]]
    paths_json: Path
    metadata: Mapping[str, str]


Write = Callable[[VectorSource, Path], None]


def writer_for(output: Path) -> Write:
    """Return what writes vectors to a path, by its suffix.

    Raises:
        ArgumentError: The suffix is not one of the formats, or pyarrow is missing.
    """
    writers = {".npy": write_npy, ".safetensors": write_safetensors, ".parquet": write_parquet}
    write = writers.get(output.suffix.lower())
    if write is None:
        raise ArgumentError(f"{output}: expected a path that ends in {', '.join(writers)}.")
    if write is write_parquet:
        _import_pyarrow()
    return write


def write_npy(source: VectorSource, path: Path) -> None:
    """Write a numpy file: float32, (N, C)."""
    with path.open("wb") as file:
        shape = (source.num_rows, source.channels)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        _write_rows(source, file)


def write_safetensors(source: VectorSource, path: Path) -> None:
    """Write a safetensors file: ``embeddings``, float32 (N, C), and ``paths``, the uint8 bytes of a JSON list.

    By hand, because the library requires all of it in memory: eight bytes of length, a JSON header, the values.
    """
    end = source.num_rows * source.channels * 4
    num_bytes = source.paths_json.stat().st_size
    header = {
        "__metadata__": dict(source.metadata),
        "embeddings": {"dtype": "F32", "shape": [source.num_rows, source.channels], "data_offsets": [0, end]},
        "paths": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [end, end + num_bytes]},
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file, source.paths_json.open("rb") as paths:
        file.write(struct.pack("<Q", len(text)) + text)
        _write_rows(source, file)
        while block := paths.read(1 << 20):
            file.write(block)


def write_parquet(source: VectorSource, path: Path) -> None:
    """Write a parquet file: ``path``, a string, and ``embedding``, a list of C float32.

    A byte of a path that is not UTF-8 is written as an escape, as in the JSON lists.
    """
    pa, parquet = _import_pyarrow()
    item = pa.list_(pa.float32(), source.channels)
    schema = pa.schema([("path", pa.string()), ("embedding", item)], metadata=dict(source.metadata))
    with parquet.ParquetWriter(path, schema) as writer:
        for paths, rows in _grouped(source.rows()):
            names = [name.encode("utf-8", "backslashreplace").decode() for name in paths]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), source.channels)
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


def _write_rows(source: VectorSource, file: IO[bytes]) -> None:
    for _, rows in source.rows():
        file.write(rows.astype("<f4", copy=False).tobytes())


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ArgumentError("Parquet files need pyarrow: pip install 'resnet-zoo[parquet]'.") from error
    return pyarrow, parquet
