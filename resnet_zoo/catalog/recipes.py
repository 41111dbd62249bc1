"""Training recipes: frozen records that nothing at run time may change.

``RECIPES`` holds the published ones. Every value is read from the configurations of the release the table stands in
(mmclassification v0.18.0, ``configs/resnet``) and was the same in every release from 0.10 to 1.2. `recipes_of`
adds this project's own short ones for CIFAR.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from resnet_zoo.base.shown import suggestion
from resnet_zoo.errors import ArgumentError

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: SGD with momentum on cross-entropy.

    Attributes:
        epochs: Passes over the training set.
        total_batch: Images per step over all devices together.
        lr: Highest learning rate, at ``total_batch``.
        momentum: Of SGD.
        nesterov: Whether the momentum looks ahead (Nesterov's form).
        weight_decay: L2 penalty.
        decay_all: Whether the penalty acts on batch-norm parameters and biases too.
        bias_lr_factor: Learning rate of batch-norm's biases over that of everything else. They learn too slowly to keep
            up in a short training (Page 2018, https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/).
        label_smoothing: Share of the target spread over all classes.
        schedule: ``step``: the rate falls by ``gamma`` at the start of each epoch in ``milestones``. ``triangle``: it
            rises linearly over the share ``warmup`` of the training, then falls linearly to zero, step by step.
        milestones: Epochs (from 0) at whose start the learning rate falls.
        gamma: Factor of each fall.
        warmup: Length of the triangle's rise, as a share of the training.
        sizes: Heights and widths that images are shrunk to, in the order they are used; empty: as they are.
        size_milestones: Shares of the training after which the next of ``sizes`` begins, with the next epoch.
        augmentation: ``pad_crop_flip`` (zero-pad 4, random 32x32 crop, flip) or ``resized_crop_flip`` (area
            0.08..1, aspect 3/4..4/3, 224x224, flip; the model's own resize backend).
        flip: ``random``: each image each time with p = 0.5. ``alternating``: drawn once per image, then turned over
            every epoch, so that each two epochs show both sides (Jordan 2024, https://arxiv.org/abs/2404.00498).
        cutout: Side in pixels of a square painted over in the image's mean colour; 0 for none
            (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552).
        precision: Of the network's arithmetic; parameters and their updates are float32.
        loss_scale: Static loss scale of half-precision training, ``None`` for none.
        splits: Parts a device's batch is divided into, each normalised by its own statistics, with their gradients
            averaged: N splits on one device give what N devices give.
        initial_values: ``upstream``: those of `ResNet.initialise`. ``torch``: of `ResNet.initialise_by_layer`.
    """

    epochs: int
    total_batch: int
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    decay_all: bool
    bias_lr_factor: float
    label_smoothing: float
    schedule: Literal["step", "triangle"]
    milestones: tuple[int, ...]
    gamma: float
    warmup: float
    sizes: tuple[int, ...]
    size_milestones: tuple[float, ...]
    augmentation: Literal["pad_crop_flip", "resized_crop_flip"]
    flip: Literal["random", "alternating"]
    cutout: int
    precision: Precision
    loss_scale: float | None
    splits: int
    initial_values: Literal["upstream", "torch"]

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with.

        Raises:
            ArgumentError: Names the field, what is allowed, and the value.
        """
        for field, value in vars(self).items():
            allowed = _ALLOWED.get(field)
            if allowed is not None and not allowed.holds(value):
                raise ArgumentError(f"Recipe field {field}: expected {allowed.words}, got {value!r}.")
        for fact, words in self._rules():
            if not fact:
                raise ArgumentError(f"Recipe field {words}.")

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """Yield what must hold between fields, and what to say if it does not."""
        num_sizes, shares = len(self.sizes), self.size_milestones
        words = f"size_milestones: expected one fewer than the {num_sizes} sizes, got {shares!r}"
        yield not self.sizes or len(shares) == num_sizes - 1, words
        yield not self.nesterov or self.momentum > 0, "nesterov: expected a momentum above 0 with it, got 0"
        is_plain = self.flip == "random" and not self.cutout
        words = f"augmentation: {self.augmentation} has random flips and no cutout, got {self.flip} and {self.cutout}"
        yield is_plain or self.augmentation == "pad_crop_flip", words


@dataclass(frozen=True)
class _Range:
    words: str
    low: float
    high: float = float("inf")
    is_open: bool = False

    def holds(self, value: Any) -> bool:
        values = value if isinstance(value, tuple) else (value,)
        known = [item for item in values if item is not None]
        return all(self.low < item < self.high if self.is_open else self.low <= item <= self.high for item in known)


_ALLOWED = {
    **dict.fromkeys(("epochs", "total_batch", "splits"), _Range("a positive number", 1)),
    **dict.fromkeys(("lr", "gamma", "loss_scale", "bias_lr_factor"), _Range("a number above 0", 0, is_open=True)),
    **dict.fromkeys(("weight_decay", "cutout"), _Range("a number of 0 or more", 0)),
    **dict.fromkeys(("momentum", "label_smoothing"), _Range("a number from 0 to 1", 0, 1)),
    **dict.fromkeys(("warmup", "size_milestones"), _Range("shares from 0 to 1", 0, 1)),
    "milestones": _Range("epochs of 1 or more", 1),
    "sizes": _Range("sizes of 8 or more", 8),
}


_CIFAR10 = Recipe(
    epochs=200,
    total_batch=128,
    lr=0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=1e-4,
    decay_all=True,
    bias_lr_factor=1.0,
    label_smoothing=0.0,
    schedule="step",
    milestones=(100, 150),
    gamma=0.1,
    warmup=0.0,
    sizes=(),
    size_milestones=(),
    augmentation="pad_crop_flip",
    flip="random",
    cutout=0,
    precision="float32",
    loss_scale=None,
    splits=1,
    initial_values="upstream",
)
_IN1K = dataclasses.replace(
    _CIFAR10, epochs=100, total_batch=256, milestones=(30, 60, 90), augmentation="resized_crop_flip"
)

RECIPES = {
    "cifar10": _CIFAR10,
    "cifar100": dataclasses.replace(_CIFAR10, weight_decay=5e-4, milestones=(60, 120, 160), gamma=0.2),
    "in1k": _IN1K,
    "in1k_fp16": dataclasses.replace(_IN1K, precision="float16", loss_scale=512.0),
}
"""The published recipe that each ``recipe`` field of the manifest names."""

_FAST = dataclasses.replace(
    _CIFAR10,
    epochs=12,
    lr=0.2,
    nesterov=True,
    weight_decay=5e-4,
    decay_all=False,
    bias_lr_factor=16.0,
    label_smoothing=0.1,
    schedule="triangle",
    milestones=(),
    warmup=0.2,
    sizes=(24, 32),
    size_milestones=(0.15,),
    flip="alternating",
    precision="bfloat16",
    initial_values="torch",
)
_MODERN = dataclasses.replace(_FAST, epochs=36, cutout=8, size_milestones=(0.3,))

_OWN_RECIPES = {
    "modern": {
        "cifar10": _MODERN,
        # Deeper networks and a tenth of the images per class: the usual rate, the same for all, for twice as long.
        "cifar100": dataclasses.replace(_MODERN, epochs=72, lr=0.1, bias_lr_factor=1.0),
    },
    "fast": {"cifar10": _FAST, "cifar100": _FAST},
}
"""This project's recipes for the rows whose published one has the same key: ``modern``, which comes near the published
accuracy in a fifth (CIFAR-100: a third) of the epochs, and ``fast``, for trying things out in a sixteenth.

A triangular schedule with Nesterov momentum takes the place of the long plateaus, at twice the rate; labels are
smoothed, flips alternate, and the first epochs, while the rate still rises, see images shrunk to 24 pixels, at little
more than half the arithmetic. Initial values are torch's: upstream's large convolutions and zeroed blocks need more
epochs than there are. The ingredients are those of DAWNBench's CIFAR-10 entries (Page 2018,
https://myrtle.ai/learn/how-to-train-your-resnet/) and of airbench (Jordan 2024, https://arxiv.org/abs/2404.00498); what
each contributed is in docs/reproducing.md.
"""


def recipes_of(key: str) -> dict[str, Recipe]:
    """Return a row's recipes by kind, ``published`` first; ``key`` is its ``recipe`` field in the manifest."""
    own = {kind: recipes[key] for kind, recipes in _OWN_RECIPES.items() if key in recipes}
    return {"published": RECIPES[key], **own}


def find_recipe(key: str, kind: str = "published") -> Recipe:
    """Return a row's recipe.

    Args:
        key: The row's ``recipe`` field in the manifest.
        kind: ``published``, ``modern`` or ``fast``.

    Raises:
        ArgumentError: The kind is unknown, or the row has none of it.
    """
    kinds = recipes_of(key)
    if kind not in kinds:
        raise ArgumentError(f"There is no recipe {kind!r} for {key} models. Pass {' or '.join(kinds)}.")
    return kinds[kind]


def override(recipe: Recipe, values: Mapping[str, str]) -> Recipe:
    """Return a recipe with some fields replaced by values read from text.

    Args:
        recipe: The recipe to begin with.
        values: Text by field: ``"12"``, ``"0.2"``, ``"true"``, ``"none"``, ``"3,7"`` for a list of numbers.

    Raises:
        ArgumentError: A field is not one of a recipe's, or its text is not a value of its type.
    """
    hints = get_type_hints(Recipe)
    for field in values:
        if field not in hints:
            raise ArgumentError(
                f"There is no recipe field {field!r}.{suggestion(field, hints)} Known: {', '.join(hints)}."
            )
    return dataclasses.replace(recipe, **{field: _parse(field, hints[field], text) for field, text in values.items()})


def difference(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    """Return the fields in which a recipe differs from another, with its own values."""
    return {field: value for field, value in vars(recipe).items() if value != getattr(base, field)}


def _parse(field: str, kind: Any, text: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    try:
        if origin is Literal:
            return {str(choice): choice for choice in arguments}[text]
        if origin is tuple:
            return tuple(arguments[0](part) for part in text.split(",") if part.strip())
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if type(None) in arguments:
            return None if text.lower() == "none" else arguments[0](text)
        return kind(text)
    except (KeyError, ValueError):
        choices = " or ".join(map(str, arguments)) if origin is Literal else ""
        expected = choices or _EXPECTED.get(kind, "numbers with commas between them")
        raise ArgumentError(f"Recipe field {field}: expected {expected}, got {text!r}.") from None


_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", float | None: "a number or none"}


# --- what a recipe says for a given step ----------------------------------------------------------------------------


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 over the whole training.

    ``step``: constant within an epoch, as upstream's. ``triangle``: linear from 0 to the highest rate at the end of the
    warm-up and linear to 0 at the end, taken at the middle of each step, so that no step has a rate of zero.
    """
    if recipe.schedule == "step":
        epoch = step // steps_per_epoch
        return recipe.lr * recipe.gamma ** sum(epoch >= milestone for milestone in recipe.milestones)
    share = (step + 0.5) / (recipe.epochs * steps_per_epoch)
    if share < recipe.warmup:
        return recipe.lr * share / recipe.warmup
    return recipe.lr * (1 - share) / (1 - recipe.warmup)


def image_size(recipe: Recipe, epoch: int) -> int | None:
    """Return the height and width that images are shrunk to in an epoch; ``None``: as they are."""
    if not recipe.sizes:
        return None
    return recipe.sizes[sum(epoch / recipe.epochs >= share for share in recipe.size_milestones)]
