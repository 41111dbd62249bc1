"""Training images as the loop sees them, and small ones: on the device from the start, augmented there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from resnet_zoo.catalog.recipes import Recipe
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.identity import images_sha256, pixels_sha256, read_all
from resnet_zoo.images.test_sets import Batch, LabelledImages, batches
from resnet_zoo.training.augment import crop_and_flip, cut_out, draw, pad
from resnet_zoo.training.order import generator
from resnet_zoo.training.tuning import Augmentation


class TrainingImages(Protocol):
    """A training set that yields augmented batches in the order it is given.

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
        num_workers: Processes that decode the images, if they are many.
        augmentation: How much of the recipe's augmentation to use, as `Tuning.augmentation`.

    Raises:
        DatasetError: An image cannot be read.
    """

    def __init__(
        self,
        entry: Entry,
        images: LabelledImages,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        num_workers: int = 0,
        augmentation: Augmentation = "usual",
    ) -> None:
        pixels, labels = read_all(images, num_workers)
        self.variant, self.num_images = images.variant, len(labels)
        self.fingerprint = pixels_sha256(pixels, labels)
        self.recipe, self.seed, self.augmentation = recipe, seed, augmentation
        self.size = pixels.shape[-1]
        self.padded, self.labels = pad(pixels).to(device), labels.to(device)
        self.colour = torch.tensor(entry.preprocess.mean, dtype=torch.float32, device=device).round().to(torch.uint8)

    def batches(self, order: Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield augmented batches; see `TrainingImages.batches`."""
        device = self.padded.device
        index = order.to(device)
        draws = draw(self.recipe, self.num_images, self.size, seed=self.seed, epoch=epoch)
        draws = draws.weakened(self.augmentation).to(device)
        pixels, labels = crop_and_flip(self.padded, index, draws), self.labels[index]
        if self.recipe.cutout:
            pixels = cut_out(pixels, self.recipe.cutout, self.colour, draws, index)
        for start in range(0, len(index), batch_size):
            yield Batch(pixels[start : start + batch_size], labels[start : start + batch_size])


class PlainImages:
    """Images of any size, read from their files each time as they are tested: without augmentation.

    Args:
        images: The images.
        num_workers: Processes that decode them.
    """

    def __init__(self, images: LabelledImages, *, num_workers: int = 0) -> None:
        self.images, self.num_workers = images, num_workers
        self.variant, self.num_images = images.variant, len(images)
        self.fingerprint = images_sha256(images, by_pixels=False)

    def batches(self, order: Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:  # noqa: ARG002  # all alike
        """Yield batches; see `TrainingImages.batches`."""
        part = _part(self.images, order.tolist(), self.variant)
        yield from batches(part, batch_size, num_workers=self.num_workers)


def hold_out(images: LabelledImages, count: int) -> tuple[LabelledImages, LabelledImages]:
    """Divide training images into those to train with and ``count`` to measure on, so that test images choose nothing.

    Which ones are held out depends on how many there are and on nothing else: no seed changes it.

    Raises:
        ArgumentError: ``count`` is not between 1 and one fewer than there are images.
    """
    total = len(images)
    if not 0 < count < total:
        raise ArgumentError(f"Expected 1 to {total - 1} images to hold out of {total}, got {count}.")
    order = torch.randperm(total, generator=generator(0, 0, "held out")).tolist()
    return (
        _part(images, sorted(order[count:]), f"{images.variant}-but-{count}"),
        _part(images, sorted(order[:count]), f"{images.variant}-held-out-{count}"),
    )


def _part(images: LabelledImages, indices: list[int], variant: str) -> LabelledImages:
    found = images.images
    chosen = found[indices] if isinstance(found, np.ndarray) else [found[index] for index in indices]
    return LabelledImages(variant, chosen, images.labels[indices], images.pixels)
