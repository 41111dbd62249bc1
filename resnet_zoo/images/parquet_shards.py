"""Training images in parquet shards (pyarrow, extra ``parquet``)."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.addresses import is_address, opened
from resnet_zoo.images.decode import Pixels
from resnet_zoo.images.sources import Labels, check_label

_CACHED_ROW_GROUPS = 4


class ParquetShards:
    """Parquet shards in Hugging Face's layout: ``image`` (a struct with ``bytes``, or the bytes) and ``label``.

    A row group is read as a whole, and each worker keeps a few: for a random order, tar shards or class folders are
    far faster.
    """

    def __init__(self, shards: list[Path], classes: list[str]) -> None:
        self._shards = shards
        labels: list[Labels] = []
        places: list[npt.NDArray[np.int64]] = []
        for number, shard in enumerate(shards):
            labels.append(_parquet_labels(shard, classes))
            lengths = _row_group_lengths(shard)
            group = np.repeat(np.arange(len(lengths)), lengths)
            row = np.concatenate([np.arange(length) for length in lengths]) if lengths else group
            places.append(np.stack([np.full(len(group), number), group, row], axis=1))
        self.labels, self._places = np.concatenate(labels), np.concatenate(places)

    def read(self, index: int) -> Pixels:
        """Return the bytes of an image file, (n,) uint8.

        Raises:
            DatasetError: It cannot be read.
        """
        number, group, row = self._places[index].tolist()
        data = _row_group(self._shards[number], group)[row].as_py()
        data = data.get("bytes") if isinstance(data, dict) else data
        if not data:
            raise DatasetError(f"{self.title(index)} is empty; expected the bytes of an image file.")
        return np.frombuffer(bytearray(data), np.uint8)  # a copy: torch requires writable memory

    def title(self, index: int) -> str:
        """Return the image's name in errors."""
        number, group, row = self._places[index].tolist()
        return f"{self._shards[number]}, row {row} of row group {group},"

    def contents(self) -> Iterator[tuple[str, int]]:
        """Yield names and sizes."""
        for shard in self._shards:
            yield shard.name, shard.stat().st_size


def _parquet_labels(shard: Path, classes: list[str]) -> Labels:
    """Read a shard's labels, checked; of the images only the names, if there are any."""
    with open_parquet(shard) as file:
        columns = file.schema_arrow.names
        if not {"image", "label"} <= set(columns):
            raise DatasetError(f"{shard} has the columns {', '.join(columns)}; expected image and label.")
        paths = [column for column in ("image.path",) if column in leaves(file)]
        table = file.read(["label", *paths], use_threads=False)
        labels = table["label"].to_pylist()
        names = [item["path"] or "" for item in table["image"].to_pylist()] if paths else [""] * len(labels)
    for row, (label, name) in enumerate(zip(labels, names, strict=True)):
        if not isinstance(label, int):
            raise DatasetError(f"{shard}, row {row} has the label {label!r}; expected a whole number.")
        check_label(label, name, classes, f"{shard}, row {row}")
    return np.array(labels, np.int64)


def _row_group_lengths(shard: Path) -> list[int]:
    with open_parquet(shard) as file:
        return [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]


@functools.lru_cache(maxsize=_CACHED_ROW_GROUPS)
def _row_group(shard: Path, number: int) -> Any:
    """Return the encoded images of a row group: an Arrow column."""
    with open_parquet(shard) as file:
        columns = ["image.bytes"] if "image.bytes" in leaves(file) else ["image"]
        return file.read_row_group(number, columns, use_threads=False)["image"]


def leaves(file: Any) -> list[str]:
    """Return the columns of an open shard that hold values, those inside structs by their dotted paths."""
    return [file.schema.column(number).path for number in range(len(file.schema))]


@contextmanager
def open_parquet(shard: str | os.PathLike[str], **options: Any) -> Iterator[Any]:
    """Open a shard with pyarrow; what goes wrong in reading it names the file.

    Args:
        shard: A path or address.
        options: Of pyarrow.

    Raises:
        ArgumentError: pyarrow is not installed, or the address has no driver here.
        DatasetError: The file cannot be read.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise ArgumentError(
            f"{shard} needs pyarrow, which is not installed: pip install 'resnet-zoo[parquet]'."
        ) from error
    try:
        with opened(shard) as source:  # by path, pyarrow would wait for a pipe
            try:
                with parquet.ParquetFile(source if is_address(shard) else shard, **options) as file:
                    yield file
            except arrow.ArrowException as error:
                raise _unreadable(shard, error) from error
    except OSError as error:
        raise _unreadable(shard, error) from error


def _unreadable(shard: str | os.PathLike[str], error: Exception) -> DatasetError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return DatasetError(f"{shard} cannot be read as parquet: {reason}. Fetch it again.")
