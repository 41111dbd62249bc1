"""Recipes: the values, against a table written down by hand from the published configurations."""

from __future__ import annotations

import dataclasses

import pytest

from resnet_zoo.recipes import RECIPES, Recipe
from resnet_zoo.records import Entry
from tests.conftest import ENTRIES, NAMES

#            epochs batch  lr momentum decay  milestones    gamma  augmentation        loss scale
TABLE = {
    "cifar10": (200, 128, 0.1, 0.9, 0.0001, (100, 150), 0.1, "pad_crop_flip", None),
    "cifar100": (200, 128, 0.1, 0.9, 0.0005, (60, 120, 160), 0.2, "pad_crop_flip", None),
    "in1k": (100, 256, 0.1, 0.9, 0.0001, (30, 60, 90), 0.1, "resized_crop_flip", None),
    "in1k_fp16": (100, 256, 0.1, 0.9, 0.0001, (30, 60, 90), 0.1, "resized_crop_flip", 512.0),
}


def test_the_table_has_every_recipe() -> None:
    assert set(RECIPES) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_every_value_is_the_published_one(name: str) -> None:
    assert dataclasses.astuple(RECIPES[name]) == TABLE[name]


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
