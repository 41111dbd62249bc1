"""Where training images lie: a tree of class folders, or shards; all read by index.

Every kind is listed once and then read at random: the sampler alone decides the order, and one order gives one
result whatever the files are packed in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import Pixels, read_file
from resnet_zoo.images.test_sets import read_tree

Labels = npt.NDArray[np.int64]

_WNID = re.compile(r"(?:.*/)?(n\d{8})[_/]")
"""As ImageNet's own names have it: ``n01440764_10026.JPEG``, or a folder of that name."""


class Source(Protocol):
    """Encoded images by index, in a fixed order."""

    labels: Labels

    def read(self, index: int) -> Pixels:
        """Return the bytes of an image file, (n,) uint8.

        Raises:
            DatasetError: It cannot be read.
        """

    def title(self, index: int) -> str:
        """Return what an error calls the image."""

    def contents(self) -> Iterator[tuple[str, int]]:
        """Yield the relative name and the size in bytes of everything there is, as a fingerprint of the whole."""


class ImageFiles:
    """Image files below a folder, in the order they are given.

    Args:
        folder: The folder.
        paths: The files.
        labels: One per file.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], labels: Sequence[int]) -> None:
        self.folder, self.labels = folder, np.array(labels, np.int64)
        # One array instead of 1.3 million objects, whose reference counts would copy the memory into every worker.
        self._names = np.array([os.fsencode(path.relative_to(folder)) for path in paths])

    def read(self, index: int) -> Pixels:
        """Return the bytes of an image file, (n,) uint8.

        Raises:
            DatasetError: It cannot be read.
        """
        return read_file(self._path(index))

    def title(self, index: int) -> str:
        """Return what an error calls the image."""
        return str(self._path(index))

    def contents(self) -> Iterator[tuple[str, int]]:
        """Yield names and sizes."""
        for index in range(len(self.labels)):
            path = self._path(index)
            yield path.relative_to(self.folder).as_posix(), path.stat().st_size

    def _path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self._names[index])


class ClassFolders(ImageFiles):
    """``<class>/<image>``, in the order of classes, then names."""

    def __init__(self, folder: Path, classes: list[str], *, partial: bool) -> None:
        super().__init__(folder, *read_tree(folder, classes, partial=partial))


def check_label(label: int, name: str, classes: list[str], title: str) -> None:
    """Refuse a label outside of the classes, or another than that of the WordNet id in the file's name."""
    if not 0 <= label < len(classes):
        raise DatasetError(f"{title} has the label {label}; expected 0 to {len(classes) - 1}.")
    wnid = _WNID.match(name)
    if wnid and wnid[1] in classes and classes[label] != wnid[1]:
        raise DatasetError(
            f"{title} has the label {label}, which is {classes[label]}: the shards number the classes in another "
            "order. Pack them with labels in WordNet-id order."
        )
