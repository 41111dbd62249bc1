"""Training recipes as published: frozen records that nothing at run time may change.

Every value is read from the configurations of the release the table stands in (mmclassification v0.18.0,
``configs/resnet``) and was the same in every release from 0.10 to 1.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """How a row was trained: SGD with momentum on plain cross-entropy, no warm-up, no label smoothing.

    The learning rate falls by ``gamma`` at the start of each epoch in ``milestones`` (counted from 0). Weight decay
    acts on every parameter, batch-norm and biases included.

    Attributes:
        epochs: Passes over the training set.
        total_batch: Images per step over all devices together.
        lr: Learning rate at ``total_batch``.
        momentum: Of SGD; never Nesterov.
        weight_decay: L2 penalty.
        milestones: Epochs at whose start the learning rate falls.
        gamma: Factor of each fall.
        augmentation: ``pad_crop_flip`` (zero-pad 4, random 32x32 crop, flip) or ``resized_crop_flip`` (area
            0.08..1, aspect 3/4..4/3, 224x224, flip; the row's own resize backend).
        loss_scale: Static loss scale of half-precision training, ``None`` for float32.
    """

    epochs: int
    total_batch: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]
    gamma: float
    augmentation: Literal["pad_crop_flip", "resized_crop_flip"]
    loss_scale: float | None


_CIFAR10 = Recipe(
    epochs=200,
    total_batch=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(100, 150),
    gamma=0.1,
    augmentation="pad_crop_flip",
    loss_scale=None,
)
_CIFAR100 = Recipe(
    epochs=200,
    total_batch=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    milestones=(60, 120, 160),
    gamma=0.2,
    augmentation="pad_crop_flip",
    loss_scale=None,
)
_IN1K = Recipe(
    epochs=100,
    total_batch=256,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(30, 60, 90),
    gamma=0.1,
    augmentation="resized_crop_flip",
    loss_scale=None,
)
_IN1K_FP16 = Recipe(
    epochs=100,
    total_batch=256,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(30, 60, 90),
    gamma=0.1,
    augmentation="resized_crop_flip",
    loss_scale=512.0,
)

RECIPES = {"cifar10": _CIFAR10, "cifar100": _CIFAR100, "in1k": _IN1K, "in1k_fp16": _IN1K_FP16}
"""The recipe that each ``recipe`` field of the manifest names."""
