"""Images by path: a file, or every image below a folder, always in the same order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.test_sets import IMAGE_SUFFIXES


def check_there(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse paths that do not exist, before anything is loaded for them.

    Raises:
        DatasetError: Names the first one.
    """
    for path in paths:
        if not Path(path).exists():
            raise DatasetError(f"{os.fspath(path)} does not exist. Check the path.")


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Yield the images of files and folders, in the order given; within a folder sorted by name, subfolders in place.

    A file is taken whatever its name, and one that is not there too: reading it says so. Below a folder, files count
    whose suffix is an image's, and names that begin with a dot do not. Links are followed, but never in a circle.
    One folder's listing at a time is held in memory.

    Raises:
        DatasetError: A folder holds no images, or cannot be read.
    """
    for given in paths:
        path = os.fspath(given)
        if not Path(path).is_dir():
            yield path
            continue
        is_empty = True
        for image in _below(path, frozenset()):
            is_empty = False
            yield image
        if is_empty:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DatasetError(f"{path} is a directory that holds no images; expected files ending in {suffixes}.")


def _below(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Yield the images below a folder, which is left out if it is one of those above it."""
    try:
        status = Path(folder).stat()
        identity = (status.st_dev, status.st_ino)
        with os.scandir(folder) as items:
            found = sorted((item.name, item.is_dir()) for item in items if not item.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    if identity in above:
        return
    for name, is_folder in found:
        path = os.path.join(folder, name)  # noqa: PTH118  # a Path per image would be half of the time
        if is_folder:
            yield from _below(path, above | {identity})
        elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
            yield path
