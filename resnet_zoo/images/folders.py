"""Images by path: a file, or every image below a folder, always in the same order."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from resnet_zoo.base.files import is_folder
from resnet_zoo.errors import DatasetError

_LOG = logging.getLogger("resnet_zoo")

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
"""How files in a folder end that are taken for images, by `decode.FORMATS`. Their content decides what they are."""

_SHOWN_KINDS = 8
"""How many kinds of what was left out a warning lists before it counts the rest."""


def is_image(name: str) -> bool:
    """Tell whether a file in a folder is taken for an image, by the end of its name."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  # a Path per image would cost more


class LeftOut:
    """Counts what a search for images leaves out, so that nothing is left out without a word."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()

    def add(self, kind: str, number: int = 1) -> None:
        """Count so many of a kind."""
        self._kinds[kind] += number

    def add_file(self, name: str) -> None:
        """Count a file by its suffix."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
        self.add(suffix if re.fullmatch(r"\.[a-z0-9]{1,9}", suffix) else "of other names")

    def shards(self) -> list[str]:
        """Return the suffixes of shards that were counted."""
        return [kind for kind in (".tar", ".parquet") if kind in self._kinds]

    def report(self, folder: str | os.PathLike[str]) -> None:
        """Log a warning if anything was left out; without a handler, Python writes it to standard error."""
        if self._kinds.total():
            counted = (+self._kinds).most_common(_SHOWN_KINDS)
            kinds = ", ".join(f"{number} {_one(kind) if number == 1 else kind}" for kind, number in counted)
            more = f" and {number} more" if (number := len(self._kinds) - _SHOWN_KINDS) > 0 else ""
            names = ", ".join(sorted(IMAGE_SUFFIXES))
            _LOG.warning("%s: left out %s%s. Names of images end in %s.", folder, kinds, more, names)


def _one(kind: str) -> str:
    """Return the singular of what is counted by a noun, as ``images beside the class folders`` is."""
    return re.sub(r"^(folder|image|label|link)s\b", r"\1", kind)


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Yield the images of files and folders, in the order given; within a folder sorted by name, subfolders in place.

    A file is yielded whatever its name, even if it does not exist: reading it reports that. Below a folder, files count
    that end in one of `IMAGE_SUFFIXES`, and names that begin with a dot do not; other files are counted in a warning.
    Links are followed, but never in a circle. One folder's listing at a time is held in memory.

    Raises:
        DatasetError: A folder holds no images, or cannot be read.
    """
    for given in paths:
        path = os.fspath(given)
        if not Path(path).is_dir():
            yield path
            continue
        is_empty, left_out = True, LeftOut()
        for image in _below(path, frozenset(), left_out):
            is_empty = False
            yield image
        left_out.report(path)
        if is_empty:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            shards = "".join(f" Name its shards to read them: {path}/*{kind}" for kind in left_out.shards())
            raise DatasetError(
                f"{path} is a directory that holds no images; expected files ending in {suffixes}.{shards}"
            )


def _below(folder: str, above: frozenset[tuple[int, int]], left_out: LeftOut) -> Iterator[str]:
    """Yield the images below a folder, which is left out if it is one of those above it."""
    try:
        status = Path(folder).stat()
        identity = (status.st_dev, status.st_ino)
        with os.scandir(folder) as items:
            found = sorted((item.name, is_folder(item)) for item in items if not item.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    if identity in above:
        return
    for name, is_subfolder in found:
        path = os.path.join(folder, name)  # noqa: PTH118  # a Path per image would be half of the time
        if is_subfolder:
            yield from _below(path, above | {identity}, left_out)
        elif is_image(name):
            yield path
        else:
            left_out.add_file(name)


def images_in(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the image files that lie in a folder itself, sorted by name; those that begin with a dot are left out."""
    found: list[str] = []
    with os.scandir(folder) as items:
        for item in items:
            if item.name.startswith("."):
                continue
            if is_folder(item):
                left_out.add("folders")
            elif is_image(item.name):
                found.append(item.name)
            else:
                left_out.add_file(item.name)
    return [folder / name for name in sorted(found)]
