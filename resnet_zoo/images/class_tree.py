"""Any tree of class folders: its class names, its training images, and those held out for validation."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_zoo.base.files import is_folder
from resnet_zoo.base.shown import suggestion
from resnet_zoo.base.strict_json import WrongValueError
from resnet_zoo.catalog.classes import check_class_names
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.folders import IMAGE_SUFFIXES, LeftOut, images_in
from resnet_zoo.images.test_sets import check_complete, some

_LOG = logging.getLogger("resnet_zoo")

VALIDATION, TEST = ("val", "valid", "validation"), "test"
"""Folders beside ``train``: of validation images, in the order they are looked for, and of test images."""

HELD_OUT = (*VALIDATION, TEST)

VAL_SHARE = 0.1
"""Share of each class that is held out of a tree that holds no such folder."""


@dataclass(frozen=True)
class Images:
    """Image files with their labels, in the order of classes, then names."""

    paths: list[Path]
    labels: list[int]

    @classmethod
    def of(cls, classes: Sequence[Sequence[Path]]) -> Images:
        """Return the images of each class, in label order, as one list."""
        labels = [label for label, paths in enumerate(classes) for _ in paths]
        return cls([path for paths in classes for path in paths], labels)


@dataclass(frozen=True)
class ClassTree:
    """A data set in class folders.

    Attributes:
        class_names: In label order.
        train: The images to train with.
        val: The images held out; empty on request.
        val_folder: The folder they lie in; ``None`` if they were held out of the training images.
        val_share: Share of each class that was held out; ``None`` if a folder held them.
        test: The test images, where there is a folder of them beside the validation images; else empty.
    """

    class_names: tuple[str, ...]
    train: Images
    val: Images
    val_folder: str | None
    val_share: float | None
    test: Images


def read_class_tree(
    root: str | os.PathLike[str], *, classes: Sequence[str] | None = None, val_share: float | None = None
) -> ClassTree:
    """List ``train/<class>/<image>`` with what is held out beside it, or a plain ``<class>/<image>``.

    Beside ``train`` may lie ``val``, ``valid`` or ``validation``, and ``test``. Without validation images those of
    ``test`` take their place, unless a share of the training images is to be held out as such.

    Images lie in the class folder itself. Names that begin with a dot are left out; so are other files and folders,
    which a warning counts.

    Args:
        root: The folder. One with a folder called ``train`` holds splits.
        classes: The classes to use, in label order; ``None`` means all folders, sorted by name.
        val_share: Share of each class's images to hold out, at least one image; 0 for none; ``None`` means
            `VAL_SHARE` where no folder holds images out. The choice follows from their names alone, the same on every
            machine. Only for a tree without a folder of validation images.

    Raises:
        DatasetError: The folder is missing or unreadable, holds fewer than two classes, or a class has no images.
        ArgumentError: A class that has no folder, is named twice, or has a name that cannot be shown; a share that is
            out of range, or is given for a tree that has validation images.
    """
    root = Path(root)
    if val_share is not None and not 0 <= val_share < 1:
        raise ArgumentError(f"Expected a val_share of 0 to below 1, got {val_share}.")
    try:
        return _read(root, classes, val_share)
    except OSError as error:
        raise DatasetError(f"{error.filename or root} cannot be read: {error.strerror or error}.") from error


def list_measurable(
    root: str | os.PathLike[str], class_names: Sequence[str], *, partial: bool = False, val_share: float | None = None
) -> dict[str, Images]:
    """Return what in a tree of class folders a network can be measured on, by title, the best first.

    ``test`` comes before the folders of validation images. A tree without any of them, plain or with ``train`` alone,
    has the part that `read_class_tree` holds out of it, and all.

    Args:
        root: The folder.
        class_names: The network's, which name the folders.
        partial: Accept a tree in which classes are missing.
        val_share: As `read_class_tree`.

    Raises:
        DatasetError: The folder is missing or unreadable, or lacks classes.
    """
    root, names = Path(root), list(class_names)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; pass the folder that holds a folder of images per class.")
    try:
        folders = [name for name in (TEST, *VALIDATION) if (root / name).is_dir() and name not in names]
        if folders:
            return {name: Images.of(_list_measured(root / name, names, partial=partial)) for name in folders}
        folder = root / "train" if (root / "train").is_dir() and "train" not in names else root
        classes = _list_measured(folder, names, partial=partial)
        share = VAL_SHARE if val_share is None else val_share
        held = [_split(paths, share)[1] if len(paths) > 1 else [] for paths in classes]
        return {"held out": Images.of(held), "all": Images.of(classes)}
    except OSError as error:
        raise DatasetError(f"{error.filename or root} cannot be read: {error.strerror or error}.") from error


def _list_measured(folder: Path, names: list[str], *, partial: bool) -> list[list[Path]]:
    """Return the images of each class; a warning names the folders of other classes, which a network does not know."""
    strays = [name for name in _folders(folder) if name not in names]
    if len(strays) == len(_folders(folder)):
        raise DatasetError(f"{folder} has no class folders; expected folders such as {names[0]} and {names[-1]}.")
    if strays:
        _LOG.warning("%s: leaves out folders that are not classes of the network: %s.", folder, some(strays))
    left_out = LeftOut()
    classes = [images_in(folder / name, left_out) if (folder / name).is_dir() else [] for name in names]
    empty = [name for name, paths in zip(names, classes, strict=True) if not paths]
    if len(empty) == len(names):
        raise DatasetError(f"{folder} holds no images; expected {names[0]}/*.jpg or *.png and so on.")
    check_complete(folder, empty, len(names), partial=partial)
    left_out.report(folder)
    return classes


def _read(root: Path, classes: Sequence[str] | None, val_share: float | None) -> ClassTree:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; pass the folder that holds a folder of images per class.")
    train_folder = root / "train" if (root / "train").is_dir() else root
    names = _class_names(train_folder, classes)
    train = _list_images(train_folder, names)
    if train_folder == root:
        return _divided(names, train, val_share, Images([], []))
    validation = next((name for name in VALIDATION if (root / name).is_dir()), None)
    test = TEST if (root / TEST).is_dir() else None
    used = [name for name in (validation, test) if name is not None]
    _report_unused(root, [train_folder, *(root / name for name in used)])
    if validation is not None and val_share is not None:
        raise ArgumentError(f"{root} has its own validation images in {validation}. Leave out val_share.")
    found = {name: _list_held_out(root / name, train_folder, names, classes) for name in used}
    if validation is None and (test is None or val_share is not None):
        return _divided(names, train, val_share, found.get(TEST, Images([], [])))
    val_folder = validation or TEST
    tested = found[TEST] if validation and test else Images([], [])
    return ClassTree(names, Images.of(train), found[val_folder], val_folder, None, tested)


def _divided(names: tuple[str, ...], train: list[list[Path]], val_share: float | None, test: Images) -> ClassTree:
    """Return a tree whose validation images are held out of the training images."""
    share = VAL_SHARE if val_share is None else val_share
    kept, held = zip(*(_split(paths, share) for paths in train), strict=True)
    return ClassTree(names, Images.of(kept), Images.of(held), None, share, test)


def _list_held_out(folder: Path, train_folder: Path, names: tuple[str, ...], classes: Sequence[str] | None) -> Images:
    strays = [] if classes is not None else [name for name in _folders(folder) if name not in names]
    if strays:
        raise DatasetError(f"{folder} has folders that are not classes of {train_folder.name}: {some(strays)}.")
    return Images.of(_list_images(folder, names))


def _report_unused(root: Path, used: list[Path]) -> None:
    """Log a warning that names the folders beside ``train`` that are not used."""
    unused = [name for name in _folders(root) if root / name not in used]
    if unused:
        _LOG.warning("%s: uses %s, and not %s.", root, " and ".join(path.name for path in used), some(unused))


def _class_names(folder: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    found = _folders(folder)
    if not found:
        raise DatasetError(f"{folder} has no class folders; expected <class>/*.jpg or train/<class>/*.jpg in it.")
    names = found if classes is None else list(classes)
    for name in names:
        if name not in found:
            raise ArgumentError(
                f"{folder} has no folder for the class {name!r}.{suggestion(name, found)} There are {some(found)}."
            )
        if names.count(name) > 1:
            raise ArgumentError(f"The class {name!r} is named twice.")
    if len(names) < 2:
        raise DatasetError(f"{folder}: expected two or more classes to tell apart, got {', '.join(names) or 'none'}.")
    try:
        check_class_names(names, len(names))
    except WrongValueError as error:
        raise ArgumentError(
            f"{folder}: the name of a class folder is unusable: {error.why}. Rename the folder."
        ) from error
    return tuple(names)


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as items:
        return sorted(item.name for item in items if is_folder(item) and not item.name.startswith("."))


def _list_images(folder: Path, names: Sequence[str]) -> list[list[Path]]:
    """Return the images of each class; a warning counts what is left out."""
    left_out = LeftOut()
    left_out.add("images beside the class folders", len(images_in(folder, LeftOut())))
    classes = [images_in(folder / name, left_out) if (folder / name).is_dir() else [] for name in names]
    empty = [name for name, paths in zip(names, classes, strict=True) if not paths]
    if empty:
        raise DatasetError(
            f"{folder} holds no images of {len(empty)} of {len(names)} classes ({some(empty)}); expected files ending "
            f"in {', '.join(sorted(IMAGE_SUFFIXES))}. Add some, or choose other classes (--classes)."
        )
    left_out.report(folder)
    return classes


def _split(paths: list[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Return the images of a class to train with, and those held out.

    Those are held out whose names have the smallest sha256, so that adding images to a class moves few.
    """
    if not share:
        return paths, []
    if len(paths) < 2:
        raise DatasetError(
            f"{paths[0].parent} holds one image, and one must be held out. Add images, or hold out none "
            "(--val-share 0)."
        )
    num_held = min(max(1, round(share * len(paths))), len(paths) - 1)
    held = set(sorted(paths, key=_digest)[:num_held])
    return [path for path in paths if path not in held], sorted(held)


def _digest(path: Path) -> bytes:
    name = f"{path.parent.name}/{path.name}"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
