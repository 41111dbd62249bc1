"""How a network is fine-tuned: every choice in one frozen record, with its reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from resnet_zoo.catalog.recipes import RECIPES, Precision, Recipe
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError

Augmentation = Literal["none", "light", "usual", "strong"]
ClassWeights = Literal["none", "balanced"]

MIN_SIZE, MAX_SIZE = 8, 1024
"""Height and width of images to train on: what five halvings leave something of, and what a batch has memory for."""


@dataclass(frozen=True)
class Tuning:
    """Hyperparameters of fine-tuning with SGD and Nesterov momentum: first a new classifier, then the whole network.

    A new classifier sends back random gradients, which would spoil what the network has learnt, so it is first trained
    alone (Kumar et al. 2022, https://arxiv.org/abs/2202.10054). In both phases the learning rate rises and falls in a
    triangle: the rise lets momentum and batch-norm settle, and the fall to zero replaces choosing an epoch.

    Attributes:
        head_epochs: Epochs of the classifier alone, with batch-norm's statistics frozen too; 0 skips the phase.
        epochs: Epochs of the whole network; 0 trains the classifier only.
        lr: Highest learning rate of the whole network: a tenth of the usual one from fresh values.
        head_factor: The classifier's rate while it trains alone, over ``lr``. It has nothing to spoil, but pooled
            vectors are long (a squared norm of several hundred), so a much higher rate would make the loss oscillate.
        batch_size: Images per step. Small, because small data sets have few steps.
        weight_decay: L2 penalty on matrices and kernels; batch-norm's parameters and biases have none.
        label_smoothing: Share of the target spread over all classes, against memorising a few images.
        warmup: Length of each triangle's rise, as a share of its phase.
        precision: Of the network's arithmetic; parameters and their updates are float32.
        image_size: Height and width of the inputs; ``None`` means the network's. A network that resizes keeps the
            share of the short edge that is cropped away.
        augmentation: ``none``: images as they are tested. ``light``: flips, and for networks that resize crops of at
            least half of the image. ``usual``: the recipe's of the network's data set. ``strong``: brightness, contrast
            and saturation change too, and for networks that do not resize a square of a quarter of the edge is painted
            over. More for few images and many epochs, less where place, side or colour tell classes apart.
        class_weights: ``balanced``: an image counts in the loss inversely to the number of its class, so that rare
            classes count as much as frequent ones.
        patience: Stop when so many epochs in a row were not better than the best on the validation images, and keep the
            best one; ``epochs`` is then an upper bound. 0: all epochs, and the last one is the result. The epochs of
            the last phase count.

    Raises:
        ArgumentError: A value is out of range.

    Example:
        >>> phases = resnet_zoo.Tuning(epochs=5, lr=0.02).phases(resnet_zoo.get_entry("resnet18_cifar10"))
        >>> {phase: (recipe.epochs, recipe.lr) for phase, recipe in phases.items()}
        {'head': (3, 0.04), 'whole': (5, 0.02)}
    """

    head_epochs: int = 3
    epochs: int = 10
    lr: float = 0.01
    head_factor: float = 2.0
    batch_size: int = 32
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    warmup: float = 0.2
    precision: Precision = "float32"
    image_size: int | None = None
    augmentation: Augmentation = "usual"
    class_weights: ClassWeights = "none"
    patience: int = 0

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with.

        Raises:
            ArgumentError: Names the field, what is allowed, and the value.
        """
        kinds = {"precision": Precision, "augmentation": Augmentation, "class_weights": ClassWeights}
        for field, kind in kinds.items():
            if getattr(self, field) not in get_args(kind):
                raise ArgumentError(f"Expected {field} {' or '.join(get_args(kind))}, got {getattr(self, field)!r}.")
        if self.image_size is not None and not MIN_SIZE <= self.image_size <= MAX_SIZE:
            raise ArgumentError(f"Expected an image_size of {MIN_SIZE} to {MAX_SIZE} pixels, got {self.image_size}.")
        if self.patience < 0:
            raise ArgumentError(f"Expected a patience of 0 or more epochs, got {self.patience}.")
        if min(self.head_epochs, self.epochs) < 0 or not self.head_epochs + self.epochs:
            raise ArgumentError(
                f"Expected epochs of 0 or more and at least one in total, got {self.head_epochs} of the classifier and "
                f"{self.epochs} of the whole network."
            )
        for field in ("lr", "head_factor", "batch_size"):
            if not 0 < getattr(self, field) < float("inf"):
                raise ArgumentError(f"Expected {field} to be a number above 0, got {getattr(self, field)!r}.")

    def phases(self, entry: Entry) -> dict[str, Recipe]:
        """Return the recipes of the phases that have epochs: ``head``, then ``whole``.

        Args:
            entry: The network's. Models that resize get random resized crops, others are padded and cropped.

        Raises:
            ArgumentError: A value is out of range.
        """
        resizes = entry.preprocess.resize_backend is not None
        is_strong = self.augmentation == "strong"
        recipe = dataclasses.replace(
            RECIPES["in1k" if resizes else "cifar10"],
            cutout=(self.image_size or entry.input_size[-1]) // 4 if is_strong and not resizes else 0,
            total_batch=self.batch_size,
            nesterov=True,
            weight_decay=self.weight_decay,
            decay_all=False,
            label_smoothing=self.label_smoothing,
            schedule="triangle",
            milestones=(),
            warmup=self.warmup,
            precision=self.precision,
            # That of the published half-precision recipe, which trains these networks with this loss.
            loss_scale=RECIPES["in1k_fp16"].loss_scale if self.precision == "float16" else None,
        )
        phases = {"head": (self.head_epochs, self.lr * self.head_factor), "whole": (self.epochs, self.lr)}
        return {
            phase: dataclasses.replace(recipe, epochs=epochs, lr=lr) for phase, (epochs, lr) in phases.items() if epochs
        }

    def resized(self, entry: Entry) -> Entry:
        """Return a network's entry with the size of images to train on."""
        if self.image_size is None:
            return entry
        size, rules = self.image_size, entry.preprocess
        if rules.short_edge and rules.crop:
            rules = dataclasses.replace(rules, short_edge=round(size * rules.short_edge / rules.crop), crop=size)
        return dataclasses.replace(entry, preprocess=rules, input_size=(entry.input_size[0], size, size))


TUNING = Tuning()
"""For a network with weights."""

FRESH = Tuning(head_epochs=0, epochs=30, lr=0.1, weight_decay=5e-4)
"""For fresh values: nothing to keep, so no separate phase for the classifier, the usual learning rate, and more epochs.
"""
