"""Recipes: the values, against a table written down by hand from the published configurations."""

from __future__ import annotations

import dataclasses
import re

import pytest

from resnet_zoo.catalog.recipes import RECIPES, Recipe, difference, find_recipe, override, recipes_of
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError
from tests.conftest import ENTRIES, NAMES

FIELDS = (
    "epochs",
    "total_batch",
    "lr",
    "momentum",
    "weight_decay",
    "milestones",
    "gamma",
    "augmentation",
    "loss_scale",
)
TABLE = {
    "cifar10": (200, 128, 0.1, 0.9, 0.0001, (100, 150), 0.1, "pad_crop_flip", None),
    "cifar100": (200, 128, 0.1, 0.9, 0.0005, (60, 120, 160), 0.2, "pad_crop_flip", None),
    "in1k": (100, 256, 0.1, 0.9, 0.0001, (30, 60, 90), 0.1, "resized_crop_flip", None),
    "in1k_fp16": (100, 256, 0.1, 0.9, 0.0001, (30, 60, 90), 0.1, "resized_crop_flip", 512.0),
}
PLAIN = {
    "nesterov": False,
    "decay_all": True,
    "bias_lr_factor": 1.0,
    "label_smoothing": 0.0,
    "schedule": "step",
    "warmup": 0.0,
    "sizes": (),
    "size_milestones": (),
    "flip": "random",
    "cutout": 0,
    "splits": 1,
    "initial_values": "upstream",
}
"""What no published recipe has."""


def test_the_table_has_every_recipe() -> None:
    assert set(RECIPES) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_every_value_is_the_published_one(name: str) -> None:
    values = dataclasses.asdict(RECIPES[name])
    assert tuple(values.pop(field) for field in FIELDS) == TABLE[name]
    assert values.pop("precision") == ("float16" if "fp16" in name else "float32")
    assert values == PLAIN


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_a_row_is_trained_with_its_data_sets_recipe(entry: Entry) -> None:
    assert entry.recipe == (f"{entry.dataset}_fp16" if "fp16" in entry.name else entry.dataset)


def test_only_the_half_precision_recipe_scales_its_loss() -> None:
    assert [name for name, recipe in RECIPES.items() if recipe.loss_scale is not None] == ["in1k_fp16"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_learning_rate_falls_within_the_training(recipe: Recipe) -> None:
    assert list(recipe.milestones) == sorted(set(recipe.milestones))
    assert recipe.milestones[0] > 0
    assert recipe.milestones[-1] < recipe.epochs
    assert 0 < recipe.gamma < 1


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["cifar10"].lr = 0.2  # type: ignore[misc]


@pytest.mark.parametrize("key", ["cifar10", "cifar100"])
@pytest.mark.parametrize(("kind", "times"), [("fast", 10), ("modern", 2)])
def test_a_shorter_recipe_keeps_network_and_data(key: str, kind: str, times: int) -> None:
    short, published = find_recipe(key, kind), find_recipe(key)
    assert short.epochs * times < published.epochs
    assert short.augmentation == published.augmentation
    assert short.sizes[-1] == 32


@pytest.mark.parametrize("key", RECIPES)
def test_every_field_is_used_by_a_recipe_that_ships(key: str) -> None:
    assert next(iter(recipes_of(key))) == "published"
    shipped = [recipe for name in RECIPES for recipe in recipes_of(name).values()]
    same = {field for field in vars(shipped[0]) if len({getattr(recipe, field) for recipe in shipped}) == 1}
    # Every recipe has the same momentum; how many parts a batch has depends on the devices that there are.
    assert same == {"momentum", "splits"}


@pytest.mark.parametrize(("key", "kind"), [("in1k", "fast"), ("cifar10", "slow")])
def test_a_kind_that_is_not_there_is_refused_with_those_that_are(key: str, kind: str) -> None:
    with pytest.raises(ArgumentError, match=f"no recipe '{kind}' for {key} models. Pass published"):
        find_recipe(key, kind)


def test_fields_are_replaced_by_text_of_their_types() -> None:
    text = {
        "epochs": "12",
        "lr": "2e-1",
        "nesterov": "True",
        "schedule": "triangle",
        "loss_scale": "none",
        "milestones": "3,7",
        "sizes": "16, 32",
        "size_milestones": "0.5",
        "precision": "bfloat16",
    }
    changed = override(RECIPES["in1k_fp16"], text)
    assert difference(changed, RECIPES["in1k_fp16"]) == {
        "epochs": 12,
        "lr": 0.2,
        "nesterov": True,
        "schedule": "triangle",
        "loss_scale": None,
        "milestones": (3, 7),
        "sizes": (16, 32),
        "size_milestones": (0.5,),
        "precision": "bfloat16",
    }
    assert override(RECIPES["cifar10"], {"milestones": ""}).milestones == ()


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("epoch", "3", "no recipe field 'epoch'. Did you mean epochs?"),
        ("epochs", "x", "epochs: expected a whole number, got 'x'"),
        ("epochs", "0", "epochs: expected a positive number, got 0"),
        ("lr", "fast", "lr: expected a number, got 'fast'"),
        ("lr", "nan", "lr: expected a number above 0, got nan"),
        ("lr", "-0.1", "lr: expected a number above 0"),
        ("nesterov", "maybe", "nesterov: expected true or false"),
        ("schedule", "cosine", "schedule: expected step or triangle, got 'cosine'"),
        ("milestones", "3,x", "milestones: expected numbers with commas"),
        ("loss_scale", "big", "loss_scale: expected a number or none"),
        ("momentum", "1.5", "momentum: expected a number from 0 to 1"),
        ("sizes", "16,32", "size_milestones: expected one fewer than the 2 sizes"),
        ("sizes", "4", "sizes: expected sizes of 8 or more"),
        ("splits", "0", "splits: expected a positive number"),
        ("loss_scale", "0", "loss_scale: expected a number above 0"),
    ],
)
def test_a_wrong_override_is_a_sentence(field: str, text: str, words: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(words)):
        override(RECIPES["cifar10"], {field: text})


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("cifar10", {"nesterov": "true", "momentum": "0"}, "nesterov: expected a momentum above 0"),
        ("in1k", {"cutout": "8"}, "resized_crop_flip has random flips and no cutout, got random and 8"),
        ("in1k", {"flip": "alternating"}, "resized_crop_flip has random flips and no cutout, got alternating and 0"),
    ],
)
def test_fields_that_cannot_stand_together_are_refused(key: str, values: dict[str, str], words: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(words)):
        override(RECIPES[key], values)
