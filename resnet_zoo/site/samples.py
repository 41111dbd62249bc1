"""What the shipped networks say of images that are given when a site is made."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resnet_zoo.catalog.classes import class_folders, class_names
from resnet_zoo.catalog.records import Entry, Manifest
from resnet_zoo.errors import ArgumentError
from resnet_zoo.weights.places import is_here

MAX_SAMPLES = 12
"""Images of a data set that are shown: of more, as many are taken from all over the list."""

_EDGE_PX = 224
"""Of the longer edge of a copy; smaller images keep their size."""


@dataclass(frozen=True)
class Sample:
    """An image and what a network says of it.

    Attributes:
        address: Of the copy in the site.
        width: In pixels.
        height: In pixels.
        truth: What it shows, where the name of its folder tells.
        guesses: The best classes with their probabilities, best first.
    """

    address: str
    width: int
    height: int
    truth: str
    guesses: tuple[tuple[str, float], ...]

    @property
    def is_right(self) -> bool | None:
        """Whether the best class is what it shows; ``None`` if that is not known."""
        return self.guesses[0][0] == self.truth if self.truth else None


@dataclass(frozen=True)
class Samples:
    """All samples of a site: by row, the copies by address, and why what was given is not among them."""

    of_row: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Picture:
    path: Path
    truth: str
    address: str
    width: int
    height: int


def classify_samples(manifest: Manifest, root: Path) -> Samples:
    """Classify the images of each data set with the default weights of its rows that are on this machine.

    Args:
        manifest: The rows.
        root: Holds a folder for each data set that has samples.

    Raises:
        ArgumentError: The folder does not exist, or has no images of any data set.
        DatasetError: A file is not an image.
        ZooError: Weights are damaged.
    """
    if not root.is_dir():
        raise ArgumentError(f"{root} is not a folder; pass the folder that holds the samples.")
    datasets = list(dict.fromkeys(entry.dataset for entry in manifest.models))
    found = {name: _chosen(root / name) for name in datasets if (root / name).is_dir()}
    if not any(found.values()):
        raise ArgumentError(
            f"{root} has no images. Expected a folder for each data set, {', '.join(datasets)}, with images, or with a "
            "folder of images per class."
        )
    rows = [entry for entry in manifest.models if found.get(entry.dataset)]
    ready = [entry for entry in rows if is_here(entry, entry.default_weights)]
    files: dict[str, bytes] = {}
    pictures = {name: list(_copy(name, paths, root, manifest, files)) for name, paths in found.items()}
    unused = set(found) - {entry.dataset for entry in ready}
    left_out = [f"{root / name}: no default weights of a row for {name} are on this machine" for name in sorted(unused)]
    shown = {entry.name: _classify(entry, pictures[entry.dataset]) for entry in ready}
    used = {sample.address for samples in shown.values() for sample in samples}
    return Samples(shown, {address: files[address] for address in sorted(used)}, tuple(left_out))


def _chosen(folder: Path) -> list[Path]:
    from resnet_zoo.images.folders import find_images

    paths = sorted(map(Path, find_images([folder])))
    number = min(len(paths), MAX_SAMPLES)
    return [paths[index * (len(paths) - 1) // max(1, number - 1)] for index in range(number)]


def _copy(
    dataset: str, paths: Sequence[Path], root: Path, manifest: Manifest, files: dict[str, bytes]
) -> Iterator[_Picture]:
    """Decode every image and write it anew: nothing of its file gets into the site but its pixels."""
    from PIL import Image

    from resnet_zoo.images.decode import decode

    classes = next(entry.classes for entry in manifest.models if entry.dataset == dataset)
    truths = dict(zip(class_folders(classes), class_names(classes), strict=True))
    for index, path in enumerate(paths):
        copy = Image.fromarray(decode(path))
        copy.thumbnail((_EDGE_PX, _EDGE_PX))
        written = io.BytesIO()
        copy.save(written, "PNG", optimize=True)
        address = f"samples/{dataset}-{index}.png"
        files[address] = written.getvalue()
        truth = truths.get(path.parent.name, "") if path.parent != root / dataset else ""
        yield _Picture(path, truth, address, *copy.size)


def _classify(entry: Entry, pictures: Sequence[_Picture]) -> tuple[Sample, ...]:
    from resnet_zoo.inference.prediction import predict

    predictions = predict(
        entry.name, [picture.path for picture in pictures], top_k=min(3, entry.num_classes), device="cpu"
    )
    return tuple(
        Sample(
            picture.address,
            picture.width,
            picture.height,
            picture.truth,
            tuple((found.name, found.probability) for found in prediction.classes),
        )
        for picture, prediction in zip(pictures, predictions, strict=True)
    )
