"""The data behind the plots, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnet_zoo.catalog.records import Entry
from resnet_zoo.site.inputs import Speeds, Training

if TYPE_CHECKING:
    from resnet_zoo.site.pages import Model


def scatter_data(models: Sequence[Model], speeds: Speeds) -> list[dict[str, Any]]:
    """Return a point for each row: published top-1 against exact counts and, where it was measured, speed."""
    return [
        {
            "name": model.entry.name,
            "title": model.title,
            "page": model.page,
            "dataset": model.dataset_title,
            "family": model.family,
            "label": f"{model.depth or ''} {model.variant}".strip(),
            "top1": float(model.entry.published.top1),
            "state": next(number.state for number in model.numbers if number.key == "top1"),
            "flops": _shortened(model.entry.exact.flops / 1e9),
            "params": _shortened(model.entry.exact.params / 1e6),
            "speed": _shortened(speeds.images_per_s.get(model.entry.name)),
        }
        for model in models
    ]


def curve_data(entry: Entry, trainings: Sequence[Training]) -> list[dict[str, Any]]:
    """Return the curves of a row's trainings, a value an epoch, ``None`` where the log has none."""
    return [
        {
            "title": f"{training.recipe.recipe} {training.name}",
            "dataset": training.environment.data.test,
            "comparable": training.environment.data.test == entry.dataset,
            "published": float(entry.published.top1),
            "epoch": [point.epoch for point in training.curve.points],
            "top1": _accuracies(training),
            **{
                key: [_shortened(getattr(point, key)) for point in training.curve.points]
                for key in ("loss", "lr", "images_per_s")
            },
        }
        for training in trainings
    ]


def _accuracies(training: Training) -> list[float | None]:
    """Return the test accuracy after each epoch; that of the last one may stand in the result alone."""
    *before, last = (_shortened(point.top1) for point in training.curve.points)
    result = training.result
    if last is None and result is not None and result.epochs == training.curve.points[-1].epoch:
        last = result.top1
    return [*before, last]


def _shortened(value: float | None) -> float | None:
    """Return a number with as many digits as a plot can show."""
    return None if value is None else float(f"{value:.5g}")
