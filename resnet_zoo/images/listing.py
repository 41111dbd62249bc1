"""Images by path, from whatever holds them: files, folders, tar and parquet shards, and addresses of all of these.

A shard's images are listed by their places in it and read there, so that a list can be gone on with anywhere, and by
several processes. (The webdataset library's reader only streams: it would have to read everything before that again,
would deal shards out to processes and not batches, and takes a shard that is cut off for a short one.)
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from resnet_zoo.errors import DatasetError
from resnet_zoo.images import addresses
from resnet_zoo.images.addresses import is_address
from resnet_zoo.images.decode import Member, Pixels, read_file
from resnet_zoo.images.folders import LeftOut, find_images, is_image
from resnet_zoo.images.parquet_shards import leaves, open_parquet
from resnet_zoo.images.tar_shards import tar_files

IMAGE_COLUMN = "image"
"""The column of parquet files that holds images, where none is named: Hugging Face's usual one."""

_SHARDS = (".tar", ".parquet")
_COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_ROWS_AT_ONCE = 8
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class TarMember(Member):
    """An image in a tar file, ``<shard>/<member>``."""

    filename: str
    shard: str
    offset: int
    size: int

    def read(self) -> Pixels:
        """Return the bytes of the image file, (n,) uint8.

        Raises:
            DatasetError: They cannot be read.
        """
        data = read_file(self.shard, offset=self.offset, size=self.size)
        if len(data) < self.size:
            raise DatasetError(f"{self.filename} is cut off: {self.shard} was truncated.")
        return data


@dataclass(frozen=True)
class ParquetRow(Member):
    """An image in a parquet file, ``<shard>#<row>``; `with_bytes` reads rows."""

    filename: str
    shard: str
    column: str
    row: int


@dataclass(frozen=True)
class LoadedRow(Member):
    """A row of a parquet file with the bytes that it holds, if any."""

    filename: str
    shard: str
    data: bytes | None

    def read(self) -> Pixels:
        """Return the bytes of the image file, (n,) uint8.

        Raises:
            DatasetError: There are none; a path in their place is not followed, wherever it leads.
        """
        if not self.data:
            raise DatasetError(f"{self.filename} is empty; expected the bytes of an image file.")
        return np.frombuffer(bytearray(self.data), np.uint8)  # a copy: torch requires writable memory


def to_json(image: str | Member) -> str:
    """Return a listed image as a line of JSON: a path as a string, a member as a list."""
    return json.dumps(image if isinstance(image, str) else [*vars(image).values()])


def from_json(line: str) -> str | TarMember | ParquetRow:
    """Return the image of a line that `to_json` made."""
    found = json.loads(line)
    if isinstance(found, str):
        return found
    return ParquetRow(*found) if isinstance(found[2], str) else TarMember(*found)


def name_of(image: str | Member) -> str:
    """Return what stands for an image in lists."""
    return image if isinstance(image, str) else image.filename


def expand(path: str) -> Iterator[str]:
    """Yield the files that a pattern stands for: ``shard-{000..003}.tar``, ``shards/*.tar``; other paths as they are.

    A path that exists is not a pattern; one that fits nothing is yielded as it is. Files are sorted by name.
    """
    for name in (path,) if _is_plain(path) else _unbraced(path):
        fitting = [] if _is_plain(name) or is_address(name) else sorted(glob.iglob(name))  # noqa: PTH207  # of a pattern with a root or without
        yield from fitting or (name,)


def _is_plain(path: str) -> bool:
    """Tell whether a path is not a pattern; the address of one would have to be asked whether it exists."""
    return not re.search(r"[{*[]" if is_address(path) else r"[{*?[]", path) or os.path.lexists(path)


def _unbraced(pattern: str) -> Iterator[str]:
    """Yield what a pattern with ``{000..003}`` or ``{a,b}`` stands for, as shells and webdataset do."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    if words is None:
        width = max(len(first), len(last)) if "0" in (first[:1], last[:1]) else 0
        parts: Iterable[str] = (f"{number:0{width}d}" for number in range(int(first), int(last) + 1))
    else:
        parts = words.split(",")
    for part in parts:
        yield from _unbraced(pattern[: match.start()] + part + pattern[match.end() :])


def check_there(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse paths that do not exist, before anything is loaded for them.

    Raises:
        DatasetError: Names the first one.
        ArgumentError: An address has no driver here.
    """
    for given in paths:
        for path in expand(os.fspath(given)):
            if is_address(path):
                is_there = addresses.exists(path) if _is_plain(path) else bool(addresses.listed(path))
            else:
                is_there = Path(path).exists()
            if not is_there:
                raise DatasetError(f"{path} does not exist. Check the path.")


def find_all(images: Iterable[Any], *, column: str = IMAGE_COLUMN) -> Iterator[Any]:
    """Yield the images of files, folders, patterns, shards (``.tar``, ``.parquet``) and addresses, in the order given.

    Folders are searched as in `find_images`; shards that lie in one are not read. Of a tar file every member counts
    whose name ends as that of an image, of a parquet file every row.

    Args:
        images: Paths; what is not a path is yielded as it is.
        column: The column of parquet files that holds images.

    Raises:
        DatasetError: A folder or shard holds no images or cannot be read, a parquet file lacks the column, or an
            address cannot be reached.
        ArgumentError: An address has no driver here, or pyarrow is not installed.
    """
    left_out = LeftOut()
    for image in images:
        if not isinstance(image, (str, os.PathLike)):
            yield image
            continue
        for path in expand(os.fspath(image)):
            for found in _files_at(path):
                yield from _images_of(found, column, left_out)
    left_out.report("The tar files")


def _images_of(path: str, column: str, left_out: LeftOut) -> Iterator[str | Member]:
    name = _name_in(path)
    if not name.endswith((*_SHARDS, *_COMPRESSED)) or (not is_address(path) and Path(path).is_dir()):
        yield from (path,) if is_address(path) else find_images([path])
    elif name.endswith(".tar"):
        yield from _tar_members(path, left_out)
    elif name.endswith(".parquet"):
        yield from _rows(path, column)
    else:
        raise DatasetError(
            f"{path} is compressed, and images are read at their places in a tar file. Decompress it (gunzip, unxz, "
            "unzstd), or pack the images without compression: they are compressed themselves."
        )


def _name_in(path: str) -> str:
    """Return what a path ends in, in lower case; of a web address, before its query."""
    return (path.partition("?")[0] if is_address(path) else path).lower()


def _files_at(path: str) -> Iterable[str]:
    """Return the files below a folder at an address, or of a pattern there; any other path itself."""
    name = _name_in(path)
    if not is_address(path) or (_is_plain(path) and (is_image(name) or name.endswith(_SHARDS))):
        return (path,)
    found = addresses.listed(path)
    if found is None:  # a file
        return (path,)
    if _is_plain(path):  # a folder
        left_out, found = LeftOut(), [*filter(is_image, everything := found)]
        for other in everything:
            if not is_image(other):
                left_out.add_file(other)
        left_out.report(path)
    if not found:
        raise DatasetError(f"{path} holds no images. Check the address.")
    return found


def _tar_members(shard: str, left_out: LeftOut) -> Iterator[TarMember]:
    is_empty = True
    for name, offset, size in tar_files(shard, left_out):
        if is_image(name):
            is_empty = False
            yield TarMember(f"{shard}/{name}", shard, offset, size)
        else:
            left_out.add_file(name)
    if is_empty:
        raise DatasetError(f"{shard} holds no images; expected members whose names end as 0001.jpg does.")


def _rows(shard: str, column: str) -> Iterator[ParquetRow]:
    with open_parquet(shard) as file:
        _leaf_of(file, shard, column)
        number = file.metadata.num_rows
    if not number:
        raise DatasetError(f"{shard} holds no images: it has no rows.")
    for row in range(number):
        yield ParquetRow(f"{shard}#{row}", shard, column, row)


def _leaf_of(file: Any, shard: str, column: str) -> str:
    """Return where the bytes of a column's images are: in itself, or in the ``bytes`` of its structs.

    Raises:
        DatasetError: There is no such column, or it holds something else.
    """
    names = file.schema_arrow.names
    if column not in names:
        raise DatasetError(
            f"{shard} has no column {column!r}; its columns are {', '.join(names)}. Name the one that holds images "
            "(--image-column, image_column)."
        )
    leaf = f"{column}.bytes" if f"{column}.bytes" in leaves(file) else column
    kind = file.schema_arrow.field(column).type
    if leaf != column:
        kind = kind.field("bytes").type
    if str(kind) not in ("binary", "large_binary", "binary_view"):
        raise DatasetError(
            f"{shard}: the column {column!r} holds {str(kind)[:80]}; expected image files, as binary or as a struct "
            "with bytes. Name another column (--image-column, image_column)."
        )
    return leaf


def with_bytes(images: Iterable[Any]) -> Iterator[Any]:
    """Yield images as they are, but rows of parquet files with their bytes; neighbours are read as a stream.

    Raises:
        DatasetError: A parquet file cannot be read.
    """
    rows: Iterator[bytes | None] = iter(())
    expected: tuple[Any, ...] = ()
    for image in images:
        if not isinstance(image, ParquetRow):
            yield image
            continue
        if (image.shard, image.column, image.row) != expected:
            rows = _read_rows(image.shard, image.column, image.row)
        data = next(rows, None)
        expected = (image.shard, image.column, image.row + 1)
        yield LoadedRow(image.filename, image.shard, data)


def _read_rows(shard: str, column: str, first: int) -> Iterator[bytes | None]:
    """Yield the bytes of a column's images from a row on; a few rows are in memory."""
    with open_parquet(shard, buffer_size=_BUFFER_BYTES) as file:
        leaf, groups = _leaf_of(file, shard, column), range(file.metadata.num_row_groups)
        for group in groups:
            number = file.metadata.row_group(group).num_rows
            if first >= number:
                first -= number
                continue
            batches = file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[leaf], use_threads=False)
            values = (value for batch in batches for value in batch.column(0).to_pylist())
            for value in islice(values, first, None):
                yield value["bytes"] if isinstance(value, dict) else value
            first = 0
