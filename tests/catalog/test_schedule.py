"""Learning rates and sizes, against upstream's tables written down by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from resnet_zoo.catalog.recipes import RECIPES, find_recipe, image_size, learning_rate
from tests.training_tools import small_recipe


@pytest.mark.parametrize(
    ("key", "epoch", "lr"),
    [
        *(("cifar10", epoch, lr) for epoch, lr in ((0, 0.1), (99, 0.1), (100, 0.01), (149, 0.01), (150, 0.001))),
        *(("cifar100", epoch, lr) for epoch, lr in ((59, 0.1), (60, 0.02), (120, 0.004), (160, 0.0008), (199, 0.0008))),
        *(("in1k", epoch, lr) for epoch, lr in ((29, 0.1), (30, 0.01), (60, 0.001), (90, 0.0001), (99, 0.0001))),
    ],
)
def test_published_rates_fall_at_the_starts_of_epochs(key: str, epoch: int, lr: float) -> None:
    steps = 391
    rates = [learning_rate(RECIPES[key], epoch * steps + step, steps) for step in (0, 1, steps - 1)]
    assert rates == pytest.approx([lr] * 3)


def test_a_triangle_rises_and_falls_in_straight_lines() -> None:
    recipe = small_recipe(schedule="triangle", epochs=10, warmup=0.2, lr=1.0)
    rates = [learning_rate(recipe, step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.025)
    assert max(rates) == pytest.approx(0.99375)
    assert rates.index(max(rates)) == 20
    assert rates[-1] == pytest.approx(0.00625)
    assert all(b - a == pytest.approx(0.05) for a, b in pairwise(rates[:20]))
    assert all(a - b == pytest.approx(0.0125) for a, b in pairwise(rates[20:]))


def test_a_triangle_without_warm_up_only_falls() -> None:
    recipe = small_recipe(schedule="triangle", warmup=0.0)
    rates = [learning_rate(recipe, step, 5) for step in range(10)]
    assert rates == sorted(rates, reverse=True)


def test_sizes_begin_with_whole_epochs() -> None:
    recipe = small_recipe(epochs=8, sizes=(16, 24, 32), size_milestones=(0.25, 0.6))
    assert [image_size(recipe, epoch) for epoch in range(8)] == [16, 16, 24, 24, 24, 32, 32, 32]
    assert image_size(RECIPES["in1k"], 5) is None


@pytest.mark.parametrize("epochs", [1, 3, 12, 100])
def test_the_fast_recipe_ends_at_full_size_unless_it_is_very_short(epochs: int) -> None:
    fast = find_recipe("cifar10", "fast")
    recipe = small_recipe(epochs=epochs, sizes=fast.sizes, size_milestones=fast.size_milestones)
    assert image_size(recipe, epochs - 1) == (24 if epochs == 1 else 32)
