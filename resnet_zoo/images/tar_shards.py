"""Training images in WebDataset shards."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from resnet_zoo.errors import DatasetError, ZooError
from resnet_zoo.images.addresses import opened
from resnet_zoo.images.decode import Pixels, read_file
from resnet_zoo.images.folders import IMAGE_SUFFIXES, LeftOut
from resnet_zoo.images.sources import check_label
from resnet_zoo.images.test_sets import some

_LONGEST_HEADER = 1 << 20
"""Bytes of the longest name and PAX header that is read; tarfile would take any number."""


class TarShards:
    """WebDataset shards: ``<key>.jpg`` and ``<key>.cls``, the label as text, in tar files.

    The webdataset library streams shards and shuffles in a buffer; here each shard's headers are walked once, and an
    image is then read at its offset.
    """

    def __init__(self, shards: list[Path], classes: list[str]) -> None:
        self._shards = shards
        names: list[str] = []
        places: list[tuple[int, int, int]] = []
        labels: list[int] = []
        for number, shard in enumerate(shards):
            for name, offset, size, label in _members(shard, classes):
                names.append(name)
                places.append((number, offset, size))
                labels.append(label)
        self.labels = np.array(labels, np.int64)
        self._names = np.array([os.fsencode(name) for name in names])
        self._places = np.array(places, np.int64)

    def read(self, index: int) -> Pixels:
        """Return the bytes of an image file, (n,) uint8.

        Raises:
            DatasetError: It cannot be read.
        """
        number, offset, size = self._places[index].tolist()
        data = read_file(self._shards[number], offset=offset, size=size)
        if len(data) < size:
            raise DatasetError(f"{self.title(index)} is cut off: {self._shards[number]} was truncated.")
        return data

    def title(self, index: int) -> str:
        """Return the image's name in errors."""
        return f"{self._shards[self._places[index, 0]]}/{os.fsdecode(self._names[index])}"

    def contents(self) -> Iterator[tuple[str, int]]:
        """Yield names and sizes."""
        for name, (number, _, size) in zip(self._names, self._places.tolist(), strict=True):
            yield f"{self._shards[number].name}/{os.fsdecode(name)}", size


def _members(shard: Path, classes: list[str]) -> Iterator[tuple[str, int, int, int]]:
    """Yield the name, offset, size and label of each image in a tar file, in its order."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    for name, offset, size in tar_files(shard):
        path = PurePosixPath(name)
        key, _, kind = path.name.partition(".")
        key = str(path.parent / key)
        if kind.lower() == "cls":
            labels[key] = _text_label(read_file(shard, offset=offset, size=size), f"{shard}/{name}")
        elif f".{kind.lower()}" in IMAGE_SUFFIXES:
            images[key] = (name, offset, size)
    if not images:
        raise DatasetError(f"{shard} holds no images; expected pairs such as 0001.jpg and 0001.cls.")
    without = [images[key][0] for key in images if key not in labels]
    if without:
        raise DatasetError(f"{shard} has no .cls file for {len(without)} of {len(images)} images ({some(without)}).")
    left_out = LeftOut()
    left_out.add("labels without an image", len(labels.keys() - images.keys()))
    left_out.report(shard)
    for key, image in images.items():
        check_label(labels[key], image[0], classes, f"{shard}/{image[0]}")
        yield (*image, labels[key])


def tar_files(shard: str | os.PathLike[str], left_out: LeftOut | None = None) -> Iterator[tuple[str, int, int]]:
    """Yield the name, offset and size of each file of a tar archive as its headers are walked, then check its end.

    Names that begin with a dot are left out, and so is what is not a file: links lead nowhere from here.

    Args:
        shard: A path or address.
        left_out: Counts what is not a file.

    Raises:
        DatasetError: It cannot be read, is not an uncompressed tar archive, is damaged or cut off.
        ArgumentError: It is an address, and has no driver here.
    """
    try:
        with opened(shard) as file:
            yield from _walk(shard, file, left_out or LeftOut())
    except (OSError, ValueError) as error:
        if isinstance(error, ZooError):
            raise
        raise _unreadable(shard, getattr(error, "strerror", error)) from error


def _walk(shard: str | os.PathLike[str], file: BinaryIO, left_out: LeftOut) -> Iterator[tuple[str, int, int]]:
    headers: Any = _Headers(file)
    try:
        with tarfile.open(fileobj=headers, mode="r:") as archive:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # they would hold every header
                if member.size < 0:  # with which some versions of tarfile go back, in a circle
                    raise tarfile.ReadError(f"a member of {member.size} bytes")
                if not member.isreg() or member.issparse():
                    left_out.add("folders" if member.isdir() else "links and other special members")
                elif not PurePosixPath(member.name).name.startswith("."):
                    yield member.name, member.offset_data, member.size
            end = archive.offset
    except (tarfile.TarError, EOFError) as error:
        raise _unreadable(shard, error) from error
    # To tarfile, a file that is cut off or damaged between two members looks complete.
    file.seek(end)
    mark = file.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE or any(mark):
        raise DatasetError(f"{shard} is truncated or damaged after {end} bytes. Fetch or pack it again.")


class _Headers:
    """A file that a tar archive's headers are read from: what claims to be longer than any name is refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _unreadable(shard: str | os.PathLike[str], reason: object) -> DatasetError:
    return DatasetError(f"{shard} cannot be read as a tar archive: {reason}. Fetch or pack it again, uncompressed.")


def _text_label(data: Pixels, title: str) -> int:
    text = data.tobytes().strip()
    if not text.isdigit():
        raise DatasetError(f"{title} holds {text[:20]!r}; expected a label as a whole number.")
    return int(text)
