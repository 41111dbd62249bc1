"""CIFAR augmentation of a whole epoch at once, on the device, in uint8.

Upstream's order: zero-pad 4 pixels on each side of the raw image, crop 32x32 at one of 9x9 places, flip with p = 0.5,
normalise. Normalisation is left to the step. Images are (N, 3, H, W) uint8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from resnet_zoo.catalog.recipes import Recipe
from resnet_zoo.training.order import generator
from resnet_zoo.training.tuning import Augmentation

PADDING = 4
"""Pixels of zeros on each side before the crop."""


@dataclass(frozen=True)
class Draws:
    """What is drawn for each of N images in one epoch.

    Attributes:
        top: First row of the crop in the padded image, (N,) int64.
        left: First column.
        is_flipped: Whether left and right are swapped, (N,) bool.
        hole_top: First row of the cutout square, (N,) int64; may lie outside of the image.
        hole_left: First column.
    """

    top: Tensor
    left: Tensor
    is_flipped: Tensor
    hole_top: Tensor
    hole_left: Tensor

    def weakened(self, augmentation: Augmentation) -> Draws:
        """Return the draws of a weaker augmentation: without other places, and for ``none`` without flips."""
        if augmentation not in ("none", "light"):
            return self
        middle = torch.full_like(self.top, PADDING)
        flips = self.is_flipped if augmentation == "light" else torch.zeros_like(self.is_flipped)
        return replace(self, top=middle, left=middle, is_flipped=flips)

    def to(self, device: torch.device) -> Draws:
        """Return the draws on a device."""
        return Draws(*(value.to(device) for value in vars(self).values()))


def draw(recipe: Recipe, num_images: int, size: int, *, seed: int, epoch: int) -> Draws:
    """Draw an epoch's augmentation of every image of the data set, in the data set's order.

    Args:
        recipe: Says how to flip and how large the cutout is.
        num_images: N.
        size: Height and width of the images.
        seed: Of the training.
        epoch: From 0.
    """
    random = generator(seed, epoch, "augment")

    def integers(high: int) -> Tensor:
        return torch.randint(high, (num_images,), generator=random)

    top, left, flip = integers(2 * PADDING + 1), integers(2 * PADDING + 1), integers(2)
    if recipe.flip == "alternating":
        first = torch.randint(2, (num_images,), generator=generator(seed, 0, "side"))
        flip = (first + epoch) % 2
    # The square's centre is anywhere in the image, so that it may be cut off by the border.
    return Draws(top, left, flip.bool(), *(integers(size) - recipe.cutout // 2 for _ in range(2)))


def pad(images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) with `PADDING` zeros on each side."""
    return functional.pad(images, (PADDING,) * 4)


def crop_and_flip(padded: Tensor, index: Tensor, draws: Draws) -> Tensor:
    """Return the images of ``index``, cropped and flipped as drawn: (len(index), 3, H, W) uint8.

    Args:
        padded: All images, padded by `pad`.
        index: (M,) int64, which images, on the same device.
        draws: One per image of the data set.
    """
    height, width = (length - 2 * PADDING for length in padded.shape[2:])
    rows = draws.top[index, None] + torch.arange(height, device=index.device)
    columns = torch.arange(width, device=index.device).expand(len(index), width)
    columns = draws.left[index, None] + torch.where(draws.is_flipped[index, None], columns.flip(1), columns)
    channels = torch.arange(padded.shape[1], device=index.device)
    return padded[index[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]]


def cut_out(images: Tensor, side: int, colour: Tensor, draws: Draws, index: Tensor) -> Tensor:
    """Return images (M, 3, H, W) with a square of ``side`` pixels each painted in a colour (3,), as drawn."""
    height, width = images.shape[2:]

    def inside(start: Tensor, length: int) -> Tensor:
        position = torch.arange(length, device=images.device) - start[index, None]
        return (position >= 0) & (position < side)

    hole = inside(draws.hole_top, height)[:, None, :, None] & inside(draws.hole_left, width)[:, None, None, :]
    return torch.where(hole, colour.to(images)[:, None, None], images)


def shrink(images: Tensor, size: int | None) -> Tensor:
    """Return float images (N, 3, H, W) resized to ``size`` pixels square with an antialiased bilinear filter."""
    if size is None or size == images.shape[-1]:
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
