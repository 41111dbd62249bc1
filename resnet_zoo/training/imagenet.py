"""ImageNet's training images as a row's recipe needs them: random resized crops, mirrored half of the time."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.datasets import NUM_IMAGES
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.parquet_shards import ParquetShards
from resnet_zoo.images.sources import ClassFolders, Source
from resnet_zoo.images.tar_shards import TarShards
from resnet_zoo.images.test_sets import check_complete, in1k_variant, some
from resnet_zoo.training.crops import CropImages

_FOLDERS = ("train", "data")
_SHARDS: dict[str, type[TarShards | ParquetShards]] = {".tar": TarShards, ".parquet": ParquetShards}


class ImageNetTraining(CropImages):
    """The training images of an ImageNet row, read by index.

    The folder, its ``train`` or (for shards) ``data`` folder holds ``<wnid>/*.JPEG``, WebDataset shards (``*.tar`` of
    ``<key>.jpg`` and ``<key>.cls``) or parquet shards (``image``, ``label``). Labels are checked against WordNet-id
    order where names carry the id.

    Args:
        entry: The row; it decides the size and how crops are resized.
        root: The folder.
        seed: Of the crops and flips, 0 to 2^64 - 1.
        partial: Accept that classes are missing.
        num_workers: Processes that read; they stay from epoch to epoch. 0 reads in this process.
        pin_memory: Put batches into page-locked memory, where there is a GPU.

    Attributes:
        variant: ``in1k`` for the complete split, else how it differs: ``in1k-100of1000classes``.
        num_images: How many images there are; indices count classes in label order, then names, or go through the
            shards by name.
        labels: (num_images,) int64.

    Raises:
        DatasetError: The folder is missing, empty or damaged, lacks classes, or has folders that are not classes.
        ArgumentError: The row is not an ImageNet row, a number is out of range, or pyarrow is needed and not installed.
    """

    def __init__(
        self,
        entry: Entry,
        root: str | os.PathLike[str],
        *,
        seed: int = 0,
        partial: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if entry.dataset != "in1k":
            raise ArgumentError(f"{entry.name} is trained on {entry.dataset}; expected an ImageNet model.")
        source = _open_source(Path(root), class_folders(entry.classes), partial=partial)
        variant = in1k_variant(source.labels.tolist(), entry.num_classes, complete=NUM_IMAGES["train"]["in1k"])
        super().__init__(entry, source, variant, seed=seed, num_workers=num_workers, pin_memory=pin_memory)


def _open_source(root: Path, classes: list[str], *, partial: bool) -> Source:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; pass the folder that holds the training images.")
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), root)
    for suffix, kind in _SHARDS.items():
        shards = _training_shards(folder, suffix)
        if shards:
            source = kind(shards, classes)
            counts = np.bincount(source.labels, minlength=len(classes))
            empty = [name for name, count in zip(classes, counts, strict=True) if not count]
            check_complete(folder, empty, len(classes), partial=partial)
            return source
    return ClassFolders(folder, classes, partial=partial)


def _training_shards(folder: Path, suffix: str) -> list[Path]:
    """Return the shards, sorted; where names say which split they are of, only those of the training split."""
    shards = sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))
    training = [path for path in shards if "train" in path.name]
    others = [path.name for path in shards if re.search("val|test", path.name)]
    if others and not training:
        raise DatasetError(f"{folder} holds no training shards, only {some(others)}.")
    return training or shards
