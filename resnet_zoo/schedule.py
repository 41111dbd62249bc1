"""What a recipe says for a given step: the learning rate and the image size."""

from __future__ import annotations

from resnet_zoo.recipes import Recipe


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
