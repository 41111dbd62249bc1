"""Retrain a row from its recipe and leave a run folder behind that anyone can check."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from resnet_zoo.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.data import open_test_set
from resnet_zoo.environment import checkout_state, code_sha256, device_title, versions
from resnet_zoo.errors import ArgumentError
from resnet_zoo.evaluation import Precision
from resnet_zoo.fit import build, check_fit, expected_shapes, with_counters
from resnet_zoo.manifest import get_entry
from resnet_zoo.preprocess import Transform
from resnet_zoo.recipes import Recipe, difference, find_recipe, override
from resnet_zoo.records import Entry
from resnet_zoo.run_records import DataFingerprint, EnvironmentFile, LogLine, RecipeFile, ResultFile
from resnet_zoo.training.console import Console, console
from resnet_zoo.training.finish import finish, summarise
from resnet_zoo.training.folder import check_space, find_finished, open_folder, start_folder
from resnet_zoo.training.imagenet import ImageNetTraining
from resnet_zoo.training.images import CifarImages, TrainingImages
from resnet_zoo.training.learner import Learner, repeat_exactly
from resnet_zoo.training.loop import Loop
from resnet_zoo.training.order import initial_values
from resnet_zoo.training.tensorboard import tensorboard_writer
from resnet_zoo.training.testing import TestImages
from resnet_zoo.training.workers import Workers, join_workers


@dataclass(frozen=True)
class Settings:
    """How a training runs, beside its recipe; none of it changes what a recipe says.

    Attributes:
        device: ``auto`` or a torch device.
        compile_network: Use torch.compile; ``None``: where there is a CUDA device.
        num_workers: Processes that decode ImageNet's images; ``None``: one per core, shared among the devices.
        partial: Accept ImageNet folders in which classes are missing.
        evaluate_every: Epochs between two looks at the test images; 0 for none before the end.
        checkpoint_s: Seconds between two checkpoints within an epoch.
        allow_changed: Go on with a run although code, recipe, data or versions are others than at its beginning.
        new: Begin a new run even if an unfinished one could go on.
        reuse: Return a finished run of exactly this kind, if it is in no summary yet, instead of training again.
        tensorboard: Write event files for TensorBoard too.
    """

    device: str = "auto"
    compile_network: bool | None = None
    num_workers: int | None = None
    partial: bool = False
    evaluate_every: int = 1
    checkpoint_s: float = 120.0
    allow_changed: bool = False
    new: bool = False
    reuse: bool = False
    tensorboard: bool = False


def reproduce(
    name: str,
    data: str | os.PathLike[str],
    *,
    recipe: str = "published",
    overrides: Mapping[str, str] | None = None,
    seed: int = 0,
    begin_with: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] = "runs",
    settings: Settings = Settings(),
) -> Path:
    """Train a row from its recipe, evaluate the last epoch's weights, and return the run folder.

    Alone, or in each of the processes that torchrun started. If the newest unfinished run of this row, recipe and seed
    is of the same code, data and versions, it goes on from its last checkpoint, bit for bit.

    Args:
        name: A row or alias.
        data: The folder of the data set: training and test images.
        recipe: ``published`` or ``fast``.
        overrides: Recipe fields to replace, as text; the result says so.
        seed: Of initial values, order and augmentation.
        begin_with: The path of weights to begin with instead of initial values; the result names their sha256.
        runs: Where run folders are made: ``<runs>/<row>/<stamp>/``.
        settings: How it runs.

    Raises:
        UnknownModelError: No row is called so.
        ArgumentError: A recipe, field, device or number of devices that cannot be.
        DatasetError: The images are missing, incomplete or unreadable.
        WeightsUnavailableError, WeightsMismatchError, UnsafeCheckpointError, CheckpointError: The weights to begin
            with cannot be used.
        TrainingError: It cannot begin, was stopped (`TrainingStopped`), or diverged (`NonFiniteLossError`).
    """
    entry = get_entry(name)
    base = find_recipe(entry.recipe, recipe)
    used = override(base, overrides or {})
    beginning = None if begin_with is None else load_checkpoint(begin_with)
    if beginning is not None:
        check_fit(entry.name, expected_shapes(entry), beginning)
        used = replace(used, begin_with=beginning.sha256)
    elif used.begin_with is not None:
        raise ArgumentError("The recipe begins with weights. Pass their file (--begin-with).")
    with join_workers(settings.device) as workers, console(quiet=not workers.is_first) as screen:
        _check(used, workers)
        screen.say(f"{entry.name}, recipe {recipe}: reading {data} …")
        training = _open_training_images(entry, data, used, seed, workers, settings)
        test_set = open_test_set(entry, data, partial=settings.partial)
        testing = TestImages(entry, test_set, workers, num_workers=_num_workers(settings))
        plan = RecipeFile(row=entry.name, recipe=recipe, overridden=difference(used, base), values=asdict(used))
        environment = _environment(training, testing, used, seed, workers, settings)
        with contextlib.ExitStack() as held:
            folder = None
            if settings.reuse:
                folder = workers.share(find_finished(Path(runs), plan, environment) if workers.is_first else None)
                if folder is not None:
                    screen.say(f"Finished before: {folder}")
                    return Path(folder)
            if workers.is_first:
                check_space(Path(runs), entry)
                found = None if settings.new else open_folder(Path(runs), plan, environment, settings.allow_changed)
                folder = held.enter_context(found or start_folder(Path(runs), plan, environment))
                screen.say(f"Run folder: {folder}")
            folder = workers.share(folder)
            learner = _learner(entry, used, seed, workers, beginning, compiled=environment.compiled)
            position = _loop(entry, learner, training, testing, workers, folder, seed, screen, settings).run()
            correct = testing.count(learner.model)
            if workers.is_first:
                result = finish(folder, learner.model, plan, environment, position, correct)
                screen.say(_verdict(result, entry))
        return Path(folder)


def reproduce_seeds(
    name: str,
    data: str | os.PathLike[str],
    *,
    seeds: Sequence[int],
    runs: str | os.PathLike[str] = "runs",
    settings: Settings = Settings(),
    **how: Any,
) -> Path:
    """Train a row once for each seed and return the folder of the summary: mean, standard deviation, n.

    Killed or stopped, the same call goes on: seeds that are finished are not trained again.

    Args:
        name: A row or alias.
        data: As in `reproduce`.
        seeds: At least two.
        runs: As in `reproduce`.
        settings: As in `reproduce`.
        how: Further arguments of `reproduce`.

    Raises:
        ZooError: As `reproduce`.
    """
    settings = replace(settings, reuse=True)
    folders = [reproduce(name, data, seed=seed, runs=runs, settings=settings, **how) for seed in seeds]
    return summarise(folders)


def _check(recipe: Recipe, workers: Workers) -> None:
    if recipe.total_batch % workers.num_devices:
        raise ArgumentError(
            f"{workers.num_devices} devices do not divide the recipe's batch of {recipe.total_batch}. Use a number of "
            "processes that does, or another batch (--set total_batch=…)."
        )


def _open_training_images(
    entry: Entry, data: str | os.PathLike[str], recipe: Recipe, seed: int, workers: Workers, settings: Settings
) -> TrainingImages:
    if entry.dataset == "in1k":
        return ImageNetTraining(
            entry,
            data,
            seed=seed,
            partial=settings.partial,
            num_workers=_num_workers(settings),
            pin_memory=workers.device.type == "cuda",
        )
    return CifarImages(entry, data, recipe, seed=seed, device=workers.device)


def _num_workers(settings: Settings) -> int:
    """Return how many processes decode images beside this one."""
    if settings.num_workers is not None:
        return settings.num_workers
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return (os.cpu_count() or 1) // local


def _environment(
    training: TrainingImages, testing: TestImages, recipe: Recipe, seed: int, workers: Workers, settings: Settings
) -> EnvironmentFile:
    commit, dirty = checkout_state()
    on_cuda = workers.device.type == "cuda"
    return EnvironmentFile(
        commit=commit,
        dirty=dirty,
        code_sha256=code_sha256(),
        command=_command(),
        versions=versions(),
        device=device_title(workers.device),
        num_devices=workers.num_devices,
        precision=recipe.precision,
        compiled=on_cuda if settings.compile_network is None else settings.compile_network,
        seed=seed,
        data=DataFingerprint(
            train=training.variant,
            test=testing.variant,
            num_train=training.num_images,
            num_test=testing.num_images,
            train_sha256=training.fingerprint,
            test_sha256=testing.fingerprint,
        ),
    )


def _command() -> tuple[str, ...]:
    """Return the program and its arguments; of an absolute path, which says nothing elsewhere, the last part."""
    return tuple(Path(argument).name if Path(argument).is_absolute() else argument for argument in sys.argv)


def _learner(
    entry: Entry, recipe: Recipe, seed: int, workers: Workers, beginning: Checkpoint | None, *, compiled: bool
) -> Learner:
    with initial_values(seed):
        model = build(entry)
        if recipe.initial_values == "torch":
            model.initialise_by_layer()
    if beginning is not None:
        model.load_state_dict(with_counters(beginning.tensors))
    repeat_exactly(workers.device)
    normalise = Transform(entry.preprocess, entry.input_size).normalise
    return Learner(model, recipe, normalise, workers, compile_network=compiled)


def _loop(
    entry: Entry,
    learner: Learner,
    training: TrainingImages,
    testing: TestImages,
    workers: Workers,
    folder: Path,
    seed: int,
    screen: Console,
    settings: Settings,
) -> Loop:
    precision: Precision = "float32" if learner.recipe.precision == "float32" else "bfloat16"

    return Loop(
        learner,
        training,
        workers,
        folder,
        seed=seed,
        size=entry.input_size[-1],
        evaluate=partial(testing.percentages, learner.model, precision) if settings.evaluate_every else None,
        evaluate_every=settings.evaluate_every,
        checkpoint_s=settings.checkpoint_s,
        watch=screen.watch,
        on_line=_listeners(screen, folder, workers, settings),
        say=screen.say,
    )


def _listeners(screen: Console, folder: Path, workers: Workers, settings: Settings) -> Callable[[LogLine], None]:
    if not (settings.tensorboard and workers.is_first):
        return screen.on_line
    write = tensorboard_writer(folder)

    def both(line: LogLine) -> None:
        screen.on_line(line)
        write(line)

    return both


def _verdict(result: ResultFile, entry: Entry) -> str:
    published = entry.published
    comparable = result.dataset == entry.dataset
    note = "" if comparable else f" ({result.dataset} is not the official test set: not comparable)"
    return (
        f"top-1 {result.top1:.2f}%, top-5 {result.top5:.2f}% of {result.num_images} images; published "
        f"{published.top1}, {published.top5}{note}. Trained in {result.train_seconds:.0f} s on {result.device}."
    )
