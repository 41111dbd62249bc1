"""Training images as the loop sees them, and CIFAR's: on the device from the start, augmented there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from resnet_zoo.data import Batch, LabelledImages, batches, open_training_set
from resnet_zoo.recipes import Recipe
from resnet_zoo.records import Entry
from resnet_zoo.training.augment import crop_and_flip, cut_out, draw, pad

_DECODE_BATCH = 1000


class TrainingImages(Protocol):
    """A training set that yields augmented batches in the order it is told.

    Attributes:
        variant: What the images are, as `LabelledImages.variant`.
        num_images: How many.
    """

    variant: str
    num_images: int

    @property
    def fingerprint(self) -> str:
        """A sha256 that tells whether they are the same images."""
        ...

    def batches(self, order: Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield pixels (N, 3, H, W) uint8 and labels (N,) int64, on the device or to be moved there.

        Args:
            order: (M,) int64, which images, in this order.
            epoch: From 0; with the image's index and the seed it decides the augmentation.
            batch_size: Images per batch; the last one may be smaller.
        """
        ...


class HeldImages:
    """Images of one size in the device's memory; a whole epoch is augmented at once.

    Args:
        entry: The row.
        images: The images; they are read here.
        recipe: Says how to augment.
        seed: Of the training.
        device: Where the images live.

    Raises:
        DatasetError: An image cannot be read.
    """

    def __init__(
        self, entry: Entry, images: LabelledImages, recipe: Recipe, *, seed: int, device: torch.device
    ) -> None:
        pixels, labels = read_all(images)
        self.variant, self.num_images = images.variant, len(labels)
        self.fingerprint = pixels_sha256(pixels, labels)
        self.recipe, self.seed = recipe, seed
        self.size = pixels.shape[-1]
        self.padded, self.labels = pad(pixels).to(device), labels.to(device)
        self.colour = torch.tensor(entry.preprocess.mean, device=device).round().to(torch.uint8)

    def batches(self, order: Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield augmented batches; see `TrainingImages.batches`."""
        device = self.padded.device
        index = order.to(device)
        draws = draw(self.recipe, self.num_images, self.size, seed=self.seed, epoch=epoch).to(device)
        pixels, labels = crop_and_flip(self.padded, index, draws), self.labels[index]
        if self.recipe.cutout:
            pixels = cut_out(pixels, self.recipe.cutout, self.colour, draws, index)
        for start in range(0, len(index), batch_size):
            yield Batch(pixels[start : start + batch_size], labels[start : start + batch_size])


class CifarImages(HeldImages):
    """CIFAR's training set in the device's memory.

    Args:
        entry: A CIFAR row.
        root: The folder of the data set, see `open_training_set`.
        recipe, seed, device: As for `HeldImages`.

    Raises:
        DatasetError: The images are missing, incomplete or unreadable.
    """

    def __init__(
        self, entry: Entry, root: str | os.PathLike[str], recipe: Recipe, *, seed: int, device: torch.device
    ) -> None:
        super().__init__(entry, open_training_set(entry, root), recipe, seed=seed, device=device)


def read_all(images: LabelledImages) -> tuple[Tensor, Tensor]:
    """Read and decode all images: pixels (N, 3, H, W) uint8 and labels (N,) int64, on the CPU.

    Raises:
        DatasetError: An image cannot be read.
    """
    found = list(batches(images, _DECODE_BATCH))
    return torch.cat([batch.pixels for batch in found]), torch.cat([batch.labels for batch in found])


def pixels_sha256(pixels: Tensor, labels: Tensor) -> str:
    """Return a sha256 over the bytes of all pixels and labels, in order."""
    digest = hashlib.sha256(pixels.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().data)
    return digest.hexdigest()
