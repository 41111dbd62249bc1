"""Retrain a row from its recipe and leave a run folder behind that anyone can check."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_zoo.base.processes import join_processes
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import find_recipe, override
from resnet_zoo.errors import ArgumentError
from resnet_zoo.training.console import console
from resnet_zoo.training.finish import summarise
from resnet_zoo.training.tensorboard import summary_writer
from resnet_zoo.training.trainer import Settings, Trainer


def reproduce(
    name: str,
    data: str | os.PathLike[str],
    *,
    recipe: str = "published",
    overrides: Mapping[str, str] | None = None,
    seed: int = 0,
    runs: str | os.PathLike[str] = "runs",
    settings: Settings | None = None,
) -> Path:
    """Train a row from its recipe, evaluate the last epoch's weights, and return the run folder.

    Alone, or in each of the processes that torchrun started. If the newest unfinished run of this row, recipe and seed
    is of the same code, data and versions, it goes on from its last checkpoint, bit for bit.

    Args:
        name: A row or alias.
        data: The folder of the data set: training and test images.
        recipe: ``published``, ``modern`` or ``fast``, as `recipes.recipes_of` has them.
        overrides: Recipe fields to replace, as text; the result says so.
        seed: Of initial values, order and augmentation.
        runs: Where run folders are made: ``<runs>/<row>/<stamp>/``.
        settings: How it runs; ``None`` means as `Settings` says by itself.

    Raises:
        UnknownModelError: No row is called so.
        ArgumentError: A recipe, field, device or number of devices that cannot be.
        DatasetError: The images are missing, incomplete or unreadable, or the same for training and testing.
        TrainingError: It cannot begin, was stopped (`TrainingStopped`), or diverged (`NonFiniteLossError`).
    """
    options: dict[str, Any] = {"overrides": overrides, "runs": runs, "settings": settings}
    with _trainer(name, data, recipe=recipe, **options) as trainer:
        return trainer.train(seed)


def reproduce_seeds(name: str, data: str | os.PathLike[str], *, seeds: Sequence[int], **how: Any) -> Path:
    """Train a row once for each seed and return the folder of the summary: mean, standard deviation, n.

    Killed or stopped, the same call goes on: seeds that are finished are not trained again, unless a summary names
    them.

    Args:
        name: A row or alias.
        data: As in `reproduce`.
        seeds: At least two, no two of them equal.
        how: Further arguments of `reproduce`.

    Raises:
        ArgumentError: Too few seeds, or equal ones.
        ZooError: As `reproduce`.
    """
    if len(set(seeds)) < max(2, len(seeds)):
        raise ArgumentError(f"Expected at least two seeds, no two of them equal; got {list(seeds)}.")
    with _trainer(name, data, **how) as trainer:
        folders = [trainer.train(seed, reuse=True) for seed in seeds]
        folder, summary = trainer.processes.first(lambda: summarise(folders))
        top1 = summary.top1
        trainer.screen.say(f"top-1 {top1.mean:.2f}%, standard deviation {top1.std:.2f}, of {top1.n} seeds.")
    return Path(folder)


@contextlib.contextmanager
def _trainer(
    name: str,
    data: str | os.PathLike[str],
    *,
    recipe: str = "published",
    overrides: Mapping[str, str] | None = None,
    runs: str | os.PathLike[str] = "runs",
    settings: Settings | None = None,
) -> Iterator[Trainer]:
    """Judge the arguments, and connect the processes for as long as the context lasts; see `reproduce`."""
    settings = settings or Settings()
    entry = get_entry(name)
    base = find_recipe(entry.recipe, recipe)
    used = override(base, overrides or {})
    if used.augmentation != base.augmentation:
        words = f"expected {base.augmentation} for {entry.name}, got {used.augmentation}"
        raise ArgumentError(f"Recipe field augmentation: {words}.")
    if settings.tensorboard:
        summary_writer()
    with join_processes(settings.device) as processes, console(quiet=not processes.is_first) as screen:
        if used.total_batch % processes.num_devices:
            raise ArgumentError(
                f"{processes.num_devices} devices do not divide the recipe's batch of {used.total_batch}. Use a number "
                "of processes that does, or another batch (--set total_batch=…)."
            )
        yield Trainer(entry, recipe, base, used, Path(data), Path(runs), settings, processes, screen)
