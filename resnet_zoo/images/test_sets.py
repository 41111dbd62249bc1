"""Labelled images: CIFAR from the official archives or a class tree, ImageNet from class folders or val.txt.

Labels are positions in the row's list of class names. That order is checked, not assumed: a folder that is not a class,
a class without images, or a list in another order is an error.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_zoo.base.files import is_folder, read_regular
from resnet_zoo.base.machine import is_offline
from resnet_zoo.base.waiting import call_while_progressing
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.datasets import FINGERPRINTS, NUM_IMAGES, Split
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import Pixels
from resnet_zoo.images.folders import LeftOut, images_in
from resnet_zoo.images.transform import Transform
from resnet_zoo.images.workers import from_workers, leave_interrupts, shared, wait_s

_PATIENCE_S = 120.0
"""How long the fetching of an archive may bring nothing."""

_TEST_FOLDERS = {"cifar10": "test", "cifar100": "test", "in1k": "val"}
_ARCHIVE_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}

_KNOWN_LABELS = {
    "ILSVRC2012_val_00000001.JPEG": 65,
    "ILSVRC2012_val_00000002.JPEG": 970,
    "ILSVRC2012_val_00000003.JPEG": 230,
}
"""Labels of three validation images in WordNet-id order, to recognise a list in another order (the devkit's)."""


_LIST_FORM = (
    "a line such as 'ILSVRC2012_val_00000001.JPEG 65' for each image, with labels in WordNet-id order (val.txt in "
    "https://download.openmmlab.com/mmclassification/datasets/imagenet/meta/caffe_ilsvrc12.tar.gz)."
)


@dataclass
class Batch:
    """Images as the network's preprocessing leaves them, before normalisation.

    Attributes:
        pixels: (N, 3, H, W) uint8.
        labels: (N,) int64.
        bad: What was wrong with each image that was left out.
    """

    pixels: Tensor
    labels: Tensor
    bad: list[str] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; data loaders look for a method of this name."""
        return Batch(self.pixels.pin_memory(), self.labels.pin_memory(), self.bad)


class LabelledImages(Dataset[Batch]):
    """A split of a data set: ``variant`` says what it is, an item is a `Batch` of one image (or of none, if it is bad).

    Args:
        variant: ``cifar10``, ``cifar100`` or ``in1k`` for the complete official set, whatever files hold its pixels,
            else a name that says how it differs: ``cifar10-jpeg``, ``in1k-100of1000classes``.
        images: Paths, or (N, H, W, 3) uint8 arrays.
        labels: One per image.
        pixels: Turns an image into (H, W, 3) uint8 of the network's size.
        skip_bad: Leave out images that cannot be read instead of raising.
    """

    def __init__(
        self,
        variant: str,
        images: list[Path] | Pixels,
        labels: npt.NDArray[np.int64],
        pixels: Callable[..., Pixels],
        *,
        skip_bad: bool = False,
    ) -> None:
        self.variant, self.images, self.labels, self.pixels, self.skip_bad = variant, images, labels, pixels, skip_bad

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        try:
            pixels = self.pixels(self.images[index])
        except DatasetError as error:
            if not self.skip_bad:
                raise
            return Batch(torch.empty(0), torch.empty(0, dtype=torch.int64), [str(error)])
        return Batch(torch.from_numpy(pixels).permute(2, 0, 1)[None], torch.from_numpy(self.labels[index : index + 1]))


def open_test_set(
    entry: Entry,
    root: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    partial: bool = False,
    download: bool = False,
) -> LabelledImages:
    """Find the test images of a row's data set in a folder.

    CIFAR: the official archive (packed or unpacked; every file's md5 is checked), or ``test/<class>/*.png|jpg``.
    ImageNet: ``val/<wnid>/*.JPEG``, or a flat ``val/`` with upstream's ``meta/val.txt``. The folder itself may also
    be the ``test`` or ``val`` folder.

    Args:
        entry: The row.
        root: The folder.
        skip_bad: Leave out unreadable images instead of raising.
        partial: Accept a tree in which classes are missing.
        download: CIFAR only: fetch the official archive into the folder if it is not there, unless in offline mode.

    Raises:
        DatasetError: The folder is missing, holds no such data set, lacks classes, or has folders that are not classes.
    """
    return _open_split(entry, Path(root), "test", skip_bad=skip_bad, partial=partial, download=download)


def open_training_set(entry: Entry, root: str | os.PathLike[str], *, partial: bool = False) -> LabelledImages:
    """Find the training images of a row's data set in a folder, as `open_test_set` finds the test images.

    CIFAR: the official archive, or ``train/<class>/*.png|jpg``. ImageNet: ``train/<wnid>/*.JPEG``.

    Args:
        entry: The row.
        root: The folder, or its ``train`` folder.
        partial: Accept a tree in which classes are missing.

    Raises:
        DatasetError: As `open_test_set`.
    """
    return _open_split(entry, Path(root), "train", skip_bad=False, partial=partial, download=False)


def _open_split(
    entry: Entry, root: Path, split: Split, *, skip_bad: bool, partial: bool, download: bool
) -> LabelledImages:
    if not root.is_dir() and not download:
        raise DatasetError(f"{root} is not a folder; pass the folder that holds {entry.dataset}.")
    transform = Transform(entry.preprocess, entry.input_size)
    if entry.dataset in _ARCHIVE_FOLDERS:
        archive = _read_archive(entry.dataset, root, split, download=download)
        if archive is not None:
            return LabelledImages(entry.dataset, *archive, transform.pixels, skip_bad=skip_bad)
    elif download:
        raise DatasetError(f"{entry.dataset} cannot be downloaded without an account; get it from image-net.org.")
    folder = root / ("train" if split == "train" else _TEST_FOLDERS[entry.dataset])
    folder = folder if folder.is_dir() else root
    lists = (root / "meta" / "val.txt", folder / "val.txt") if (entry.dataset, split) == ("in1k", "test") else ()
    labels_file = next((file for file in lists if file.is_file()), None)
    if labels_file is not None:
        paths, labels = _read_list(labels_file, folder, entry.num_classes)
    else:
        otherwise = f"Or put upstream's list at {lists[0]}: {_LIST_FORM}" if lists else ""
        paths, labels = read_tree(folder, class_folders(entry.classes), partial=partial, otherwise=otherwise)
    images = LabelledImages("", paths, np.array(labels, dtype=np.int64), transform.pixels, skip_bad=skip_bad)
    images.variant = entry.dataset if _is_official(images, entry, split) else _variant(entry, split, paths, labels)
    return images


def _is_official(images: LabelledImages, entry: Entry, split: Split) -> bool:
    """Tell whether files hold exactly the pixels and labels of an official set whose fingerprint is known."""
    expected = FINGERPRINTS.get((entry.dataset, split))
    if expected is None or len(images) != NUM_IMAGES[split][entry.dataset]:
        return False
    try:
        return pixels_fingerprint(images) == expected
    except DatasetError:  # an image cannot be read: whoever reads it next reports that
        return False


def pixels_fingerprint(images: LabelledImages) -> str:
    """Return a sha256 over label and pixels of every image, whatever their order and the files they are in.

    Sha256 of the sorted sha256 of each image: its label (8 bytes, little-endian) and its (H, W, 3) uint8 pixels.

    Raises:
        DatasetError: An image cannot be read.
    """
    digests = []
    for batch in batches(images, _FINGERPRINT_BATCH):
        pixels = batch.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        labels = batch.labels.numpy().astype("<i8")
        pairs = zip(labels, pixels, strict=True)
        digests += [hashlib.sha256(label.tobytes() + image.tobytes()).digest() for label, image in pairs]
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


_FINGERPRINT_BATCH = 500
"""Images decoded at a time; it changes nothing but the memory used."""


def listing_sha256(files: Iterable[tuple[str, int]], labels: npt.NDArray[np.int64]) -> str:
    """Return a sha256 over the names, sizes in bytes and labels of files: cheap, and blind to a changed byte in one."""
    digest = hashlib.sha256()
    for name, size in files:
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def batches(
    images: LabelledImages, batch_size: int, *, num_workers: int = 0, pin_memory: bool = False
) -> Iterator[Batch]:
    """Yield the images in order, in batches, the last one possibly smaller.

    Raises:
        DatasetError: An image cannot be read (without ``skip_bad``); the message names the file. Or the workers failed.
    """
    lenient = copy.copy(images)
    lenient.skip_bad = True  # workers report bad images instead of raising, which would bring their traceback along
    loader = DataLoader(
        lenient,
        batch_size,
        num_workers=num_workers,
        collate_fn=_join,
        pin_memory=pin_memory,
        worker_init_fn=leave_interrupts,
        timeout=wait_s(num_workers),
    )
    for batch in from_workers(loader, num_workers):
        if batch.bad and not images.skip_bad:
            raise DatasetError(batch.bad[0])
        yield batch


def _join(items: list[Batch]) -> Batch:
    good = [item for item in items if not item.bad]
    return Batch(
        shared(torch.cat([item.pixels for item in good]) if good else torch.empty(0)),
        shared(torch.cat([item.labels for item in items])),
        [reason for item in items for reason in item.bad],
    )


def _read_archive(
    dataset: str, root: Path, split: Split, *, download: bool
) -> tuple[Pixels, npt.NDArray[np.int64]] | None:
    """Read the official archive with torchvision, which checks md5 sums; ``None`` if it is not there."""
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[dataset]
    packed = root / kind.filename
    download = download and not is_offline()
    if not (download or packed.is_file() or (root / _ARCHIVE_FOLDERS[dataset]).is_dir()):
        return None
    if packed.is_file() and not download and not check_integrity(str(packed), kind.tgz_md5):
        raise DatasetError(f"{packed} is damaged: its md5 is not {kind.tgz_md5}. Fetch it again.")
    try:
        # With an intact archive at hand, "download" only unpacks it.
        images = call_while_progressing(
            lambda: kind(str(root), train=split == "train", download=download or packed.is_file()),
            lambda: sum(path.stat().st_size for path in (packed, *packed.parent.glob("cifar-*/*")) if path.is_file()),
            patience_s=_PATIENCE_S,
            sentence=f"Waiting for {kind.url} to answer.",  # torchvision's request has no timeout
        )
    except Exception as error:  # torchvision raises RuntimeError, OSError, pickle and urllib errors alike
        reason = (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
        if "download=True" in reason:  # torchvision's advice, for its own argument
            reason = "a file is missing, or has the wrong md5"
        raise DatasetError(f"{root}: the {dataset} archive cannot be used: {reason}. Fetch it again.") from error
    names = class_folders(dataset)
    if list(images.classes) != names:
        raise DatasetError(f"{root}: the {dataset} archive lists its classes in another order than {names[:3]}….")
    return images.data, np.array(images.targets, dtype=np.int64)


def read_tree(folder: Path, classes: list[str], *, partial: bool, otherwise: str = "") -> tuple[list[Path], list[int]]:
    """List ``<class>/<image>`` in the order of classes, then names; a warning counts what is left out.

    ``otherwise`` says in an error what else to do about images that lie in no class folder.

    Returns:
        The paths and their labels.

    Raises:
        DatasetError: There are no images, folders that are not classes, or (without ``partial``) classes without
            images.
    """
    found = {item.name for item in os.scandir(folder) if is_folder(item) and not item.name.startswith(".")}
    loose = images_in(folder, LeftOut())
    if loose and not found & set(classes):
        raise DatasetError(
            f"{folder} holds {len(loose)} images and no class folders; expected folders such as {classes[0]} and "
            f"{classes[-1]}. {otherwise or 'Sort the images into them.'}"
        )
    strays = sorted(found - set(classes))
    if strays and not found & set(classes):
        raise DatasetError(f"{folder} has no class folders; expected folders such as {classes[0]} and {classes[-1]}.")
    if strays:
        raise DatasetError(f"{folder} has folders that are not classes: {some(strays)}. Move them out of it.")
    paths: list[Path] = []
    labels: list[int] = []
    empty: list[str] = []
    left_out = LeftOut()
    left_out.add("images beside the class folders", len(loose))
    for label, name in enumerate(classes):
        images = images_in(folder / name, left_out) if name in found else []
        paths += images
        labels += [label] * len(images)
        if not images:
            empty.append(name)
    if not paths:
        raise DatasetError(f"{folder} holds no images; expected {classes[0]}/*.jpg or *.png and so on.")
    check_complete(folder, empty, len(classes), partial=partial)
    left_out.report(folder)
    return paths, labels


def check_complete(folder: Path, empty: list[str], num_classes: int, *, partial: bool) -> None:
    """Refuse a data set that lacks classes, unless that is accepted.

    Raises:
        DatasetError: Classes are empty; they are counted and some named.
    """
    if empty and not partial:
        raise DatasetError(
            f"{folder} has no images for {len(empty)} of {num_classes} classes ({some(empty)}). Complete it, or pass "
            "partial=True (--partial) to use what is there."
        )


def _read_list(labels_file: Path, folder: Path, num_classes: int) -> tuple[list[Path], list[int]]:
    """Read upstream's ``val.txt``: a file name and a label a line."""
    paths: list[Path] = []
    labels: list[int] = []
    try:
        lines = read_regular(labels_file).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{labels_file} cannot be read as a list of file names and labels: {error}.") from error
    for number, line in enumerate(lines, start=1):
        name, _, label = line.strip().rpartition(" ")
        if not (name and label.isascii() and label.isdecimal() and int(label) < num_classes):
            raise DatasetError(
                f"{labels_file}, line {number}: expected a file name and a label below {num_classes}, got {line!r}."
            )
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DatasetError(f"{labels_file}, line {number}: {name} points outside {folder}.")
        if _KNOWN_LABELS.get(name, int(label)) != int(label):
            raise DatasetError(
                f"{labels_file} lists labels in another order: {name} is {_KNOWN_LABELS[name]}, got {label}. "
                "Use the list in WordNet-id order (upstream's meta/val.txt)."
            )
        paths.append(folder / name)
        labels.append(int(label))
    if not paths:
        raise DatasetError(f"{labels_file} is empty; expected a file name and a label a line.")
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(f"{folder} lacks {len(missing)} of {len(paths)} listed images ({some(missing)}).")
    return paths, labels


def _variant(entry: Entry, split: Split, paths: list[Path], labels: list[int]) -> str:
    """Name what the images are, so that a number measured on them is never mistaken for one on the official set."""
    complete = NUM_IMAGES[split][entry.dataset]
    if entry.dataset == "in1k":
        return in1k_variant(labels, entry.num_classes, complete=complete)
    classes = _missing_classes(labels, entry.num_classes)
    suffixes = {path.suffix.lower().replace("jpeg", "jpg") for path in paths}
    kind = {".jpg": "jpeg", ".png": "png"}.get(suffixes.pop(), "images") if len(suffixes) == 1 else "images"
    count = "" if len(paths) == complete else f"-{len(paths)}images"
    return f"{entry.dataset}-{kind}{classes or count}"


def in1k_variant(labels: Sequence[int], num_classes: int, *, complete: int) -> str:
    """Name a set of ImageNet images: ``in1k`` for the ``complete`` split, else how it differs from it."""
    classes = _missing_classes(labels, num_classes)
    if len(labels) == complete and not classes:
        return "in1k"
    return f"in1k{classes or f'-{len(labels)}images'}"


def _missing_classes(labels: Sequence[int], num_classes: int) -> str:
    num_present = len(set(labels))
    return "" if num_present == num_classes else f"-{num_present}of{num_classes}classes"


def some(names: list[str]) -> str:
    """Return the first few names, for an error."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
