"""Retrain a row from its recipe and leave a run folder behind that anyone can check."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resnet_zoo.base.devices import device_title
from resnet_zoo.base.machine import checkout_state, code_sha256, versions
from resnet_zoo.base.processes import Processes, is_restarted, join_processes
from resnet_zoo.catalog.datasets import official_accuracy
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import Recipe, difference, find_recipe, override
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.batches import num_cores
from resnet_zoo.images.test_sets import open_test_set, open_training_set
from resnet_zoo.images.transform import Transform
from resnet_zoo.network.building import build
from resnet_zoo.runs.records import DataFingerprint, EnvironmentFile, LogLine, RecipeFile, ResultFile
from resnet_zoo.training.display import Console, console, summary_writer, tensorboard_writer
from resnet_zoo.training.finish import finish, summarise
from resnet_zoo.training.folders import changes_since, check_space, find_finished, open_folder, start_folder
from resnet_zoo.training.held_images import HeldImages, TrainingImages, hold_out
from resnet_zoo.training.imagenet import ImageNetTraining
from resnet_zoo.training.learner import Learner, repeat_exactly
from resnet_zoo.training.loop import Loop, writing
from resnet_zoo.training.measuring import TestImages
from resnet_zoo.training.order import initial_values


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
    has the same code, data and versions, it resumes from its last checkpoint, bit for bit.

    Args:
        name: A row or alias.
        data: The folder of the data set: training and test images.
        recipe: ``published``, ``modern`` or ``fast``, as `recipes.recipes_of` has them.
        overrides: Recipe fields to replace, as text; the result says so.
        seed: Of initial values, order and augmentation.
        runs: Where run folders are made: ``<runs>/<row>/<stamp>/``.
        settings: How it runs; ``None`` means the defaults of `Settings`.

    Raises:
        UnknownModelError: No row has this name.
        ArgumentError: A recipe, field, device or number of devices is invalid.
        DatasetError: The images are missing, incomplete or unreadable, or the same for training and testing.
        TrainingError: It cannot start, was stopped (`TrainingStopped`), or diverged (`NonFiniteLossError`).
    """
    options: dict[str, Any] = {"overrides": overrides, "runs": runs, "settings": settings}
    with _trainer(name, data, recipe=recipe, **options) as trainer:
        return trainer.train(seed)


def reproduce_seeds(name: str, data: str | os.PathLike[str], *, seeds: Sequence[int], **how: Any) -> Path:
    """Train a row once for each seed and return the folder of the summary: mean, standard deviation, n.

    After a kill or a stop, the same call continues: finished seeds are not trained again, unless a summary names them.

    Args:
        name: A row or alias.
        data: As in `reproduce`.
        seeds: At least two, all different.
        how: Further arguments of `reproduce`.

    Raises:
        ArgumentError: Too few seeds, or equal ones.
        ZooError: As `reproduce`.
    """
    if len(set(seeds)) < max(2, len(seeds)):
        raise ArgumentError(f"Expected at least two seeds, all different; got {list(seeds)}.")
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
    """Check the arguments, and connect the processes for as long as the context lasts; see `reproduce`."""
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


@dataclass(frozen=True)
class Settings:
    """How a training runs, besides its recipe; nothing here changes what a recipe says.

    Attributes:
        device: ``auto`` or a torch device.
        compile_network: Use torch.compile; ``None``: where there is a CUDA device.
        num_workers: Processes that decode images; ``None``: one per core, shared among the devices.
        partial: Accept ImageNet folders in which classes are missing.
        hold_out: Training images of CIFAR to measure on instead of the test images, which are not opened then; 0 for
            none. For choosing a recipe: such a run is not a result of its row.
        evaluate_every: Epochs between two looks at the test images; 0 for none before the end.
        checkpoint_s: Seconds between two checkpoints within an epoch; see `Loop`.
        allow_changed: Resume a run even if code, recipe, data or versions have changed since it began.
        new: Start a new run even if an unfinished one could be resumed; one that torchrun restarts is resumed.
        tensorboard: Write event files for TensorBoard too.
    """

    device: str = "auto"
    compile_network: bool | None = None
    num_workers: int | None = None
    partial: bool = False
    hold_out: int = 0
    evaluate_every: int = 1
    checkpoint_s: float = 120.0
    allow_changed: bool = False
    new: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class Trainer:
    """A row about to be trained, and everything needed for it but the seed.

    Attributes:
        entry: The row.
        kind: Name of the recipe.
        base: The recipe of that name.
        recipe: The recipe as it is used.
        data: The folder of the data set.
        runs: Where run folders are made.
        settings: How it runs.
        processes: The processes that train together.
        screen: Shows the progress.
    """

    entry: Entry
    kind: str
    base: Recipe
    recipe: Recipe
    data: Path
    runs: Path
    settings: Settings
    processes: Processes
    screen: Console

    def train(self, seed: int, *, reuse: bool = False) -> Path:
        """Train with a seed, and return the run folder.

        Args:
            seed: Of initial values, order and augmentation.
            reuse: Return a finished run of exactly this kind, if it is in no summary yet, instead of training again.
        """
        self.screen.say(f"{self.entry.name}, recipe {self.kind}: reading {self.data} …")
        training, testing = self._images(seed)
        overridden = difference(self.recipe, self.base)
        plan = RecipeFile(row=self.entry.name, recipe=self.kind, overridden=overridden, values=asdict(self.recipe))
        environment = self._environment(training, testing, seed)
        with contextlib.ExitStack() as held:
            finished = self.processes.first(lambda: find_finished(self.runs, plan, environment)) if reuse else None
            if finished is not None:
                self.screen.say(f"Already finished: {finished}")
                return Path(finished)
            folder = Path(self.processes.first(lambda: held.enter_context(self._folder(plan, environment))))
            self.screen.say(f"Run folder: {folder}")
            changes = self.processes.first(lambda: changes_since(folder, plan, environment))
            learner = self._learner(seed, compiled=environment.compiled)
            position = self._loop(learner, training, testing, folder, seed, changes).run()
            if self.processes.is_first:
                with writing(folder):
                    result = finish(folder, learner.model, plan, environment, position)
                self.screen.say(_verdict(result, self.entry))
        return folder

    def _images(self, seed: int) -> tuple[TrainingImages, TestImages]:
        """Open the training images and those to measure on, which must not be the same."""
        entry, settings = self.entry, self.settings
        training: TrainingImages
        if entry.dataset == "in1k":
            if settings.hold_out:
                raise ArgumentError(
                    f"Only CIFAR models can hold out training images; {entry.name} is an ImageNet model."
                )
            training = ImageNetTraining(
                entry,
                self.data,
                seed=seed,
                partial=settings.partial,
                num_workers=self._num_workers,
                pin_memory=self.processes.device.type == "cuda",
            )
        else:
            labelled = open_training_set(entry, self.data)
            if settings.hold_out:
                labelled, test_set = hold_out(labelled, settings.hold_out)
            training = HeldImages(
                entry,
                labelled,
                self.recipe,
                seed=seed,
                device=self.processes.device,
                num_workers=self._num_workers,
            )
        if not settings.hold_out:
            test_set = open_test_set(entry, self.data, partial=settings.partial)
        testing = TestImages(entry, test_set, self.processes, num_workers=self._num_workers)
        if training.fingerprint == testing.fingerprint:
            raise DatasetError(
                f"{self.data} holds the same images for training and for testing. Pass the folder that holds both "
                "the training and the test folder."
            )
        return training, testing

    @property
    def _num_workers(self) -> int:
        """How many processes decode images beside this one."""
        if self.settings.num_workers is not None:
            return self.settings.num_workers
        return num_cores() // self.processes.local_size

    def _environment(self, training: TrainingImages, testing: TestImages, seed: int) -> EnvironmentFile:
        commit, dirty = checkout_state()
        compiled = self.settings.compile_network
        return EnvironmentFile(
            commit=commit,
            dirty=dirty,
            code_sha256=code_sha256(),
            command=_command(),
            versions=versions(),
            device=device_title(self.processes.device),
            num_devices=self.processes.num_devices,
            precision=self.recipe.precision,
            compiled=self.processes.device.type == "cuda" if compiled is None else compiled,
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

    def _folder(self, plan: RecipeFile, environment: EnvironmentFile) -> AbstractContextManager[Path]:
        """Find an unfinished run to resume, or make a new one; a context manager."""
        if not self.settings.new or is_restarted():
            found = open_folder(self.runs, plan, environment, self.settings.allow_changed)
            if found is not None:
                return found
        check_space(self.runs, self.entry)
        return start_folder(self.runs, plan, environment)

    def _learner(self, seed: int, *, compiled: bool) -> Learner:
        with initial_values(seed):
            model = build(self.entry)
            if self.recipe.initial_values == "torch":
                model.initialise_by_layer()
        repeat_exactly(self.processes.device)
        normalise = Transform(self.entry.preprocess, self.entry.input_size).normalise
        return Learner(model, self.recipe, normalise, self.processes, compile_network=compiled)

    def _loop(
        self,
        learner: Learner,
        training: TrainingImages,
        testing: TestImages,
        folder: Path,
        seed: int,
        changes: list[str],
    ) -> Loop:
        return Loop(
            learner,
            training,
            self.processes,
            folder,
            seed=seed,
            size=self.entry.input_size[-1],
            testing=testing,
            evaluate_every=self.settings.evaluate_every,
            checkpoint_s=self.settings.checkpoint_s,
            changes=changes,
            watch=self.screen.watch,
            on_line=self._listener(folder),
            say=self.screen.say,
        )

    def _listener(self, folder: Path) -> Callable[[LogLine], None]:
        """Return the function that is called with every line of the log."""
        if not (self.settings.tensorboard and self.processes.is_first):
            return self.screen.on_line
        write = tensorboard_writer(folder)

        def both(line: LogLine) -> None:
            self.screen.on_line(line)
            write(line)

        return both


def _command() -> tuple[str, ...]:
    """Return the program and its arguments; of an absolute path, which says nothing elsewhere, the last part."""
    program, *arguments = (Path(part).name if Path(part).is_absolute() else part for part in sys.argv)
    return "resnet-zoo" if program == "__main__.py" else program, *arguments  # python -m resnet_zoo


def _verdict(result: ResultFile, entry: Entry) -> str:
    published = entry.published
    official = official_accuracy(entry.dataset, result, "top1")
    if official is None:
        note = f" ({result.dataset} is not the official test set, so not comparable)"
    else:
        note = f" (top-1: {official.words})" if official.words else ""
    return (
        f"top-1 {result.top1:.2f}%, top-5 {result.top5:.2f}% of {result.num_images} images; published "
        f"{published.top1}, {published.top5}{note}. Trained in {result.train_seconds:.0f} s on {result.device}."
    )
