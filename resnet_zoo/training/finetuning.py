"""Transfer learning: from a network of the zoo and a tree of class folders to a network file for those classes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from resnet_zoo.base.devices import device_title, resolve_device
from resnet_zoo.base.files import check_target
from resnet_zoo.base.machine import code_sha256, versions
from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.names import kind_of
from resnet_zoo.catalog.recipes import Recipe
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.batches import map_in_order, num_cores
from resnet_zoo.images.class_tree import ClassTree, Images, read_class_tree
from resnet_zoo.images.decode import decode
from resnet_zoo.images.sources import ImageFiles
from resnet_zoo.images.test_sets import LabelledImages
from resnet_zoo.inference.counted import wilson_interval
from resnet_zoo.network.building import build
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.training.crops import CropImages
from resnet_zoo.training.display import Console, Silent
from resnet_zoo.training.folders import Plan, work_folder
from resnet_zoo.training.held_images import HeldImages, TrainingImages
from resnet_zoo.training.learner import Learner, repeat_exactly
from resnet_zoo.training.loop import Loop
from resnet_zoo.training.measuring import TestImages
from resnet_zoo.training.order import initial_values
from resnet_zoo.training.snapshots import Position
from resnet_zoo.training.tuning import FRESH, TUNING, Tuning
from resnet_zoo.weights.network_file import save_network
from resnet_zoo.zoo import Network, open_network


def finetune(
    name: str | os.PathLike[str],
    data: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    from_scratch: bool = False,
    val_share: float | None = None,
    tuning: Tuning | None = None,
    seed: int = 0,
    device: str = "auto",
    num_workers: int | None = None,
    overwrite: bool = False,
    screen: Console | None = None,
) -> FinetuneResult:
    """Fine-tune a network on a folder of images per class: first a new classifier, then the whole network.

    The result is a network file that `create_model`, `predict`, `embed` and others take in place of a name. Its header
    holds class names, preprocessing, origin, hyperparameters and the accuracy on the held-out images. The last epoch
    is the result: nothing is selected on the held-out images. The same call gives the same bits on the same device.

    Checkpoints are kept in a hidden folder beside the target until it is written. After a kill or a stop, the same call
    resumes from the last checkpoint, to the same bits.

    Args:
        name: A row or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        data: The folder of images, see `read_class_tree`. Images may have any size: a network that resizes is trained
            on random resized crops, others (CIFAR's) on images shrunk to their size, padded, cropped and flipped.
        target: The ``.safetensors`` file to write.
        classes: The classes to use, in label order; ``None`` means all, sorted by name.
        weights: For a row: a tag or path, as in `create_model`; ``None`` means its default weights.
        from_scratch: Start from fresh values instead of weights.
        val_share: Share of each class to hold out if there is none of `HELD_OUT`, 0 to below 1; ``None``
            means `VAL_SHARE`.
        tuning: Hyperparameters; ``None`` means `TUNING`, or `FRESH` from scratch.
        seed: Of the new values, the order and the augmentation.
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        num_workers: Processes that decode images for a network that resizes; ``None`` means one per core.
        overwrite: Replace a target that exists, and discard an unfinished training with other settings.
        screen: Shows the progress; ``None`` for silence.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, DownloadError, WeightsMismatchError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `open_network`.
        DatasetError: The images are missing, unreadable, or of fewer than two classes.
        ArgumentError: The target has another suffix or exists, a class has no folder, arguments exclude each other, a
            value is out of range, or the device is not available.
        TrainingError: Another process is writing the target, an unfinished training has other settings, the disk is
            full, or the training was stopped (`TrainingStopped`) or diverged (`NonFiniteLossError`).
        OSError: The target cannot be written; the last checkpoint is kept.

    Example:
        >>> tuning = resnet_zoo.Tuning(head_epochs=1, epochs=0)
        >>> result = resnet_zoo.finetune("resnet18_cifar10", "pets/", "pets.safetensors", tuning=tuning)
        >>> resnet_zoo.predict("pets.safetensors", "photo.jpg")[0].classes
        (ClassScore(label=..., name='...', probability=...), ClassScore(label=..., name='...', probability=...))
    """
    target = Path(target)
    check_target(target, (".safetensors",), overwrite=overwrite)
    network = _find_network(name, weights, from_scratch=from_scratch)
    tree = read_class_tree(data, classes=classes, val_share=val_share)
    if not from_scratch:
        _ = network.weights  # a fault in them is reported before any image is read
    tuner = Tuner(
        network=network,
        made_from=_origin(network, weights, from_scratch=from_scratch),
        from_scratch=from_scratch,
        tree=tree,
        tuning=tuning or (FRESH if from_scratch else TUNING),
        seed=seed,
        processes=_alone(device),
        num_workers=num_cores() if num_workers is None else num_workers,
        screen=screen or Silent(),
    )
    return tuner.run(Path(data), target, overwrite=overwrite)


def _find_network(
    name: str | os.PathLike[str], weights: str | os.PathLike[str] | None, *, from_scratch: bool
) -> Network:
    if from_scratch and weights is not None:
        raise ArgumentError(f"Weights ({os.fspath(weights)}) and from_scratch are mutually exclusive. Leave one out.")
    if from_scratch and kind_of(name) != "row":
        raise ArgumentError(f"{os.fspath(name)} has its own weights. Leave out from_scratch, or name a row instead.")
    network = open_network(name, weights=weights)
    _ = network.transform  # refuses a network for other images than RGB
    return network


def _origin(network: Network, weights: str | os.PathLike[str] | None, *, from_scratch: bool) -> str:
    """Name what a training starts from; files without their folders."""
    if from_scratch:
        return "fresh values"
    kind = kind_of(network.name)
    if kind == "row":
        return f"{network.entry.name} {Path(network.entry.chosen(weights)).name}"
    return network.name if kind == "repository" else Path(network.name).name


def _alone(device: str) -> Processes:
    if os.environ.get("WORLD_SIZE") not in (None, "", "1"):
        raise ArgumentError("Fine-tuning uses one device. Start it without torchrun.")
    return Processes(0, 1, resolve_device(device))


_VARIANT = "class folders"


@dataclass(frozen=True)
class FinetuneResult:
    """What `finetune` returns: the file of a fine-tuned network, and how well it does.

    Attributes:
        path: The file.
        sha256: Its sha256.
        size_bytes: Its size.
        model: The row whose network it is.
        made_from: What it started from: a row and a tag, a file, a repository, or ``fresh values``.
        class_names: In label order.
        num_train: Images trained on.
        num_val: Images held out.
        top1: Top-1 accuracy on the held-out images after the last epoch, in percent, in float32; ``None`` if none were
            held out.
        top1_interval: 95% Wilson score interval of ``top1``, in percent; ``None`` if none were held out.
        train_seconds: Time spent in training steps.
        device: The device's name.

    Example:
        >>> tuning = resnet_zoo.Tuning(head_epochs=1, epochs=0)
        >>> result = resnet_zoo.finetune("resnet18_cifar10", "pets/", "pets.safetensors", tuning=tuning)
        >>> result.class_names, result.num_train, result.num_val, result.made_from
        (('cat', 'dog'), 10, 2, 'resnet18_cifar10 retrained')
    """

    path: str
    sha256: str
    size_bytes: int
    model: str
    made_from: str
    class_names: tuple[str, ...]
    num_train: int
    num_val: int
    top1: float | None
    top1_interval: tuple[float, float] | None
    train_seconds: float
    device: str


@dataclass(frozen=True)
class Tuner:
    """A network about to be fine-tuned, and everything needed for it.

    Attributes:
        network: What it starts from.
        made_from: The name of that.
        from_scratch: Use fresh values instead of the network's weights.
        tree: The images.
        tuning: Hyperparameters.
        seed: Of new values, order and augmentation.
        processes: This process alone, and its device.
        num_workers: Processes that decode images for a network that resizes.
        screen: Shows the progress.
    """

    network: Network
    made_from: str
    from_scratch: bool
    tree: ClassTree
    tuning: Tuning
    seed: int
    processes: Processes
    num_workers: int
    screen: Console

    @property
    def entry(self) -> Entry:
        """The network's row, with its own preprocessing and size, and the new classes."""
        return replace(self.network.entry, num_classes=len(self.tree.class_names))

    def run(self, root: Path, target: Path, *, overwrite: bool) -> FinetuneResult:
        """Read the images, train all phases, write the file.

        Args:
            root: The folder that holds the images.
            target: The file to write.
            overwrite: As `finetune`.

        Raises:
            As `finetune`, for images, target and training.
        """
        phases = self.tuning.phases(self.entry)
        repeat_exactly(self.processes.device)
        model = self._begin()
        self.screen.say(f"Reading {len(self.tree.train.paths)} images of {len(self.tree.class_names)} classes …")
        training = self._training_images(root, next(iter(phases.values())))
        testing = self._held_out()
        plan = self._plan(training, testing)
        with work_folder(target, plan, overwrite=overwrite) as folder:
            seconds, correct = 0.0, None
            for phase, recipe in phases.items():
                position = self._train(model, phase, recipe, training, testing, folder / phase)
                seconds += position.seconds
                if testing is not None:
                    correct = position.test_correct1
                    self.screen.say(f"{correct} of {testing.num_images} held-out images correct")
            metadata = self._metadata(plan, correct)
            sha256 = save_network(
                target,
                model,
                row=self.entry.name,
                class_names=self.tree.class_names,
                preprocess=self.entry.preprocess,
                input_size=self.entry.input_size,
                metadata=metadata,
                overwrite=overwrite,
            )
        num_val = len(self.tree.val.paths)
        return FinetuneResult(
            path=str(target),
            sha256=sha256,
            size_bytes=target.stat().st_size,
            model=plan.model,
            made_from=plan.made_from,
            class_names=plan.class_names,
            num_train=training.num_images,
            num_val=num_val,
            top1=None if correct is None else 100 * correct / num_val,
            top1_interval=None if correct is None else wilson_interval(correct, num_val),
            train_seconds=seconds,
            device=plan.device,
        )

    def _begin(self) -> ResNet:
        """Return the network with its weights or fresh values, and a fresh classifier."""
        with initial_values(self.seed):
            if self.from_scratch:
                return build(self.entry)
            model = self.network.load()
            model.reset_classifier(self.entry.num_classes)
            return model

    def _training_images(self, root: Path, recipe: Recipe) -> TrainingImages:
        if self.entry.preprocess.resize_backend is None:
            held = self._labelled(self.tree.train)
            return HeldImages(self.entry, held, recipe, seed=self.seed, device=self.processes.device)
        _check_readable(self.tree)
        source = ImageFiles(root, self.tree.train.paths, self.tree.train.labels)
        on_gpu = self.processes.device.type == "cuda"
        return CropImages(self.entry, source, _VARIANT, seed=self.seed, num_workers=self.num_workers, pin_memory=on_gpu)

    def _held_out(self) -> TestImages | None:
        if not self.tree.val.paths:
            return None
        return TestImages(self.entry, self._labelled(self.tree.val), self.processes, num_workers=self.num_workers)

    def _labelled(self, images: Images) -> LabelledImages:
        labels = np.array(images.labels, dtype=np.int64)
        return LabelledImages(_VARIANT, images.paths, labels, self.network.transform.pixels)

    def _plan(self, training: TrainingImages, testing: TestImages | None) -> Plan:
        return Plan(
            model=self.entry.name,
            made_from=self.made_from,
            weights_sha256=None if self.from_scratch else self.network.weights.checkpoint.sha256,
            class_names=self.tree.class_names,
            tuning=self.tuning,
            seed=self.seed,
            train_sha256=training.fingerprint,
            val_sha256=testing.fingerprint if testing else None,
            code_sha256=code_sha256(),
            device=device_title(self.processes.device),
            versions=versions(),
        )

    def _train(
        self,
        model: ResNet,
        phase: str,
        recipe: Recipe,
        training: TrainingImages,
        testing: TestImages | None,
        folder: Path,
    ) -> Position:
        """Train one phase, from its last checkpoint if there is one, and return where it ended."""
        is_head = phase == "head"
        model.freeze("stage4" if is_head else None)
        learner = Learner(model, recipe, self.network.transform.normalise, self.processes)
        self.screen.say(f"The {'classifier' if is_head else 'whole network'}: {recipe.epochs} epochs")
        loop = Loop(
            learner,
            training,
            self.processes,
            folder,
            seed=self.seed,
            size=self.entry.input_size[-1],
            testing=testing,
            watch=self.screen.watch,
            on_line=self.screen.on_line,
            say=self.screen.say,
        )
        return loop.run()

    def _metadata(self, plan: Plan, correct: int | None) -> dict[str, str]:
        """Return the header's texts beside the network's own; no time and no path, so that equal runs are equal."""
        texts = {
            "finetuned_from": {"weights": plan.made_from, "sha256": plan.weights_sha256},
            "finetuning": {**asdict(plan.tuning), "seed": plan.seed, "num_images": len(self.tree.train.paths)},
            "finetuning_data": {"train_sha256": plan.train_sha256, "val_sha256": plan.val_sha256},
        }
        if correct is not None:
            num_val = len(self.tree.val.paths)
            texts["validation"] = {"num_images": num_val, "correct1": correct, "top1": 100 * correct / num_val}
        return {key: json.dumps(value) for key, value in texts.items()}


def _check_readable(tree: ClassTree) -> None:
    """Decode every image once, so that a broken one is reported before an epoch begins.

    Raises:
        DatasetError: An image cannot be read; the message names it.
    """
    for _ in map_in_order(decode, [*tree.train.paths, *tree.val.paths], num_threads=num_cores()):
        pass
