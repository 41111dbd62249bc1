"""A small network and small images to train it on, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.architectures import Architecture
from resnet_zoo.catalog.recipes import RECIPES, Recipe
from resnet_zoo.images.test_sets import Batch
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.training.learner import Learner
from resnet_zoo.training.loop import Loop

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


def small_recipe(**fields: Any) -> Recipe:
    """Return a recipe of 2 epochs with batches of 8."""
    return replace(RECIPES["cifar10"], **{"epochs": 2, "total_batch": 8, "lr": 0.05, "milestones": (1,), **fields})


def small_network(seed: int = 0) -> ResNet:
    """Return a ResNet of one block per narrow stage with 10 classes."""
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(seed)
        patch.setattr("resnet_zoo.network.resnet.STAGE_WIDTHS", (16, 16, 32, 32))  # checkpoints of 0.3 MB, not 40
        return ResNet(Architecture("basic", (1, 1, 1, 1)), stem="cifar", num_classes=10)


def normalise(pixels: Tensor) -> Tensor:
    """Return inputs for pixels."""
    return (pixels.float() - 120) / 60


def small_learner(recipe: Recipe, processes: Processes = ALONE) -> Learner:
    """Return a learner of the small network."""
    return Learner(small_network(), recipe, normalise, processes)


class SmallImages:
    """20 random images of 8x8 pixels, the same ones for every epoch."""

    variant, num_images, fingerprint = "small", 20, "0" * 64

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(1)
        self.pixels = torch.randint(0, 256, (self.num_images, 3, 8, 8), dtype=torch.uint8, generator=random)
        self.labels = torch.arange(self.num_images) % 10

    def batches(self, order: Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield the images of an order."""
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            yield Batch(self.pixels[part], self.labels[part])


def small_loop(folder: Path, recipe: Recipe | None = None, learner: Learner | None = None, **options: Any) -> Loop:
    """Return a loop that trains a learner (of the small network) on the small images."""
    learner = learner or small_learner(recipe or small_recipe())
    return Loop(learner, SmallImages(), ALONE, folder, **{"seed": 0, "size": 8, **options})


def same_state(one: Learner, other: Learner) -> bool:
    """Tell whether two learners hold the same bits."""
    states = one.state(), other.state()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )
