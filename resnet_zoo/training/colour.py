"""Colour augmentation of any training images: brightness, contrast and saturation, drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from resnet_zoo.images.test_sets import Batch
from resnet_zoo.training.held_images import TrainingImages

STRENGTH = 0.4
"""Each factor is uniform from 1 - STRENGTH to 1 + STRENGTH, as in ImageNet trainings since Krizhevsky's successors
(torchvision's ``ColorJitter(0.4, 0.4, 0.4)``)."""

_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luma (ITU-R BT.601)."""


class ColourImages:
    """Training images in other colours; the factors of an image follow from seed, epoch and index alone.

    Args:
        images: The images, augmented in whatever other ways.
        seed: Of the training.
    """

    def __init__(self, images: TrainingImages, *, seed: int) -> None:
        self.images, self.seed = images, seed
        self.variant, self.num_images, self.fingerprint = images.variant, images.num_images, images.fingerprint

    def batches(self, order: Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield augmented batches; see `TrainingImages.batches`."""
        factors = draw_factors(self.num_images, seed=self.seed, epoch=epoch)[order.cpu()]
        start = 0
        for batch in self.images.batches(order, epoch=epoch, batch_size=batch_size):
            end = start + len(batch.labels)
            yield Batch(change_colours(batch.pixels, factors[start:end]), batch.labels)
            start = end


def draw_factors(num_images: int, *, seed: int, epoch: int) -> Tensor:
    """Return the factors of brightness, contrast and saturation of every image in an epoch: (num_images, 3) float32.

    Philox is addressable; the third word of its counter keeps these numbers apart from those of `uniform_numbers`.
    """
    philox = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, 1, 0], np.uint64))
    uniform = np.random.Generator(philox).random((num_images, 3), dtype=np.float32)
    return torch.from_numpy(1 + STRENGTH * (2 * uniform - 1))


def change_colours(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return images (N, 3, H, W) uint8 with brightness, then contrast, then saturation times their factors (N, 3)."""
    brightness, contrast, saturation = factors.to(pixels.device)[:, :, None, None, None].unbind(dim=1)
    weights = torch.tensor(_GREY, dtype=torch.float32, device=pixels.device)[:, None, None]
    values = pixels.float() * brightness
    mean = (values * weights).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    values = mean + (values - mean) * contrast
    grey = (values * weights).sum(dim=1, keepdim=True)
    values = grey + (values - grey) * saturation
    return values.round_().clamp_(0, 255).to(torch.uint8)
