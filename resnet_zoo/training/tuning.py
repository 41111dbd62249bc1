"""How a network is fine-tuned: every choice in one frozen record, with its reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import get_args

from resnet_zoo.catalog.recipes import RECIPES, Precision, Recipe
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError


@dataclass(frozen=True)
class Tuning:
    """Two phases of SGD with Nesterov momentum: a fresh classifier on a frozen network, then all of it.

    A fresh classifier sends random gradients back, which would spoil what the network has learnt; so it is trained
    alone first (Kumar et al. 2022, https://arxiv.org/abs/2202.10054). In both phases the rate rises and falls in a
    triangle: the rise lets momentum and batch-norm settle, the fall to zero takes the place of choosing an epoch.

    Attributes:
        head_epochs: Epochs of the classifier alone, with batch-norm's statistics frozen too; 0 leaves the phase out.
        epochs: Epochs of the whole network; 0 trains the classifier only.
        lr: Highest rate of the whole network. A tenth of what networks are trained with from fresh values.
        head_factor: The classifier's rate while it is alone, over ``lr``: there is nothing to spoil. Pooled vectors
            are long (a squared norm of several hundred), so that much more would make its loss swing.
        batch_size: Images per step. Small, because small data sets have few steps.
        weight_decay: L2 penalty on matrices and kernels; batch-norm's parameters and biases have none.
        label_smoothing: Share of the target spread over all classes: keeps few images from being learnt by heart.
        warmup: Length of each triangle's rise, as a share of its phase.
        precision: Of the network's arithmetic; parameters and their updates are float32.
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

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with.

        Raises:
            ArgumentError: Names the field, what it may be, and what it is.
        """
        if self.precision not in get_args(Precision):
            raise ArgumentError(f"Expected precision {' or '.join(get_args(Precision))}, got {self.precision!r}.")
        if min(self.head_epochs, self.epochs) < 0 or not self.head_epochs + self.epochs:
            raise ArgumentError(
                f"Expected epochs of 0 or more and at least one in total, got {self.head_epochs} of the classifier and "
                f"{self.epochs} of the whole network."
            )
        for field in ("lr", "head_factor", "batch_size"):
            if not 0 < getattr(self, field) < float("inf"):
                raise ArgumentError(f"Expected {field} to be a number above 0, got {getattr(self, field)!r}.")

    def phases(self, entry: Entry) -> dict[str, Recipe]:
        """Return the recipe of each phase, ``head`` and ``whole``, of those that have epochs, in this order.

        Args:
            entry: The network's row; one that resizes gets random resized crops, another is padded and cropped.

        Raises:
            ArgumentError: A value is out of range.
        """
        recipe = dataclasses.replace(
            RECIPES["cifar10" if entry.preprocess.resize_backend is None else "in1k"],
            total_batch=self.batch_size,
            nesterov=True,
            weight_decay=self.weight_decay,
            decay_all=False,
            label_smoothing=self.label_smoothing,
            schedule="triangle",
            milestones=(),
            warmup=self.warmup,
            precision=self.precision,
            # As the published half-precision recipe, whose networks and losses are these.
            loss_scale=RECIPES["in1k_fp16"].loss_scale if self.precision == "float16" else None,
        )
        phases = {"head": (self.head_epochs, self.lr * self.head_factor), "whole": (self.epochs, self.lr)}
        return {
            phase: dataclasses.replace(recipe, epochs=epochs, lr=lr) for phase, (epochs, lr) in phases.items() if epochs
        }


TUNING = Tuning()
"""For a network with weights."""

FRESH = Tuning(head_epochs=0, epochs=30, lr=0.1, weight_decay=5e-4)
"""For fresh values: there is nothing to keep, so no phase of its own for the classifier, a rate that networks are
trained with, and more epochs."""
