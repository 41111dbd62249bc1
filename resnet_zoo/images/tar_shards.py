"""Training images in WebDataset shards."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from resnet_zoo.base.files import open_regular
from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import Pixels, read_file
from resnet_zoo.images.folders import IMAGE_SUFFIXES, LeftOut
from resnet_zoo.images.sources import check_label
from resnet_zoo.images.test_sets import some


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
    for name, offset, size in _tar_files(shard):
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


def _tar_files(shard: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the name, offset and size of each file of a tar archive, and check that its end is there."""
    try:
        with open_regular(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isfile() and not PurePosixPath(member.name).name.startswith("."):
                    yield member.name, member.offset_data, member.size
            end = archive.offset
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DatasetError(f"{shard} cannot be read as a tar archive: {error}. Fetch or pack it again.") from error
    # To tarfile, a file that is cut off or damaged between two members looks complete.
    mark = np.fromfile(shard, np.uint8, tarfile.BLOCKSIZE, offset=end)
    if len(mark) < tarfile.BLOCKSIZE or mark.any():
        raise DatasetError(f"{shard} is truncated or damaged after {end} bytes. Fetch or pack it again.")


def _text_label(data: Pixels, title: str) -> int:
    text = data.tobytes().strip()
    if not text.isdigit():
        raise DatasetError(f"{title} holds {text[:20]!r}; expected a label as a whole number.")
    return int(text)
