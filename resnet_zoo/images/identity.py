"""Whether images are the same ones: fingerprints of what a network was trained or measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from resnet_zoo.images.test_sets import LabelledImages, batches, listing_sha256

_DECODE_BATCH = 1000

_MANY = 10_000
"""Images in files that are worth starting processes for: one alone decodes 2,000 to 3,000 a second."""


def images_sha256(images: LabelledImages, *, by_pixels: bool) -> str:
    """Return a sha256 that tells whether images are the same, in the same order and with the same labels.

    Args:
        images: The images.
        by_pixels: Decode and hash every image, as for networks that never resize, whose images are small; else hash
            names and sizes of the files, which is cheap, and blind to a changed byte in one.

    Raises:
        DatasetError: An image cannot be read.
    """
    if by_pixels:
        return pixels_sha256(*read_all(images))
    return listing_sha256(_files_of(images), images.labels)


def _files_of(images: LabelledImages) -> Iterator[tuple[str, int]]:
    """Yield names, that of the folder included, and sizes: the same as a training set of the same files would."""
    for path in images.images:
        yield f"{path.parent.name}/{path.name}", path.stat().st_size


def read_all(images: LabelledImages, num_workers: int = 0) -> tuple[Tensor, Tensor]:
    """Read and decode all images: pixels (N, 3, H, W) uint8 and labels (N,) int64, on the CPU.

    Args:
        images: A split of a data set.
        num_workers: Processes that decode them, if they are many files.

    Raises:
        DatasetError: An image cannot be read.
    """
    is_worth = isinstance(images.images, list) and len(images) >= _MANY
    found = list(batches(images, _DECODE_BATCH, num_workers=num_workers if is_worth else 0))
    return torch.cat([batch.pixels for batch in found]), torch.cat([batch.labels for batch in found])


def pixels_sha256(pixels: Tensor, labels: Tensor) -> str:
    """Return a sha256 over the bytes of all pixels and labels, in order."""
    digest = hashlib.sha256(pixels.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().data)
    return digest.hexdigest()
