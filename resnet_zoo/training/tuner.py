"""A network in fine-tuning: its images, its phases, the report on what was held out, and the file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_zoo.base.devices import device_title
from resnet_zoo.base.machine import code_sha256, versions
from resnet_zoo.base.processes import Processes
from resnet_zoo.base.shown import quantity
from resnet_zoo.catalog.recipes import Recipe
from resnet_zoo.catalog.records import Entry
from resnet_zoo.images.batches import map_in_order, num_cores
from resnet_zoo.images.class_tree import ClassTree, Images
from resnet_zoo.images.decode import decode
from resnet_zoo.images.identity import images_sha256
from resnet_zoo.images.sources import ImageFiles
from resnet_zoo.images.test_sets import LabelledImages
from resnet_zoo.inference.counted import wilson_interval
from resnet_zoo.inference.evaluation import Evaluation, measure
from resnet_zoo.network.building import build
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.training.best_epoch import BestEpoch
from resnet_zoo.training.colour import ColourImages
from resnet_zoo.training.crops import AREA, LIGHT_AREA, CropImages
from resnet_zoo.training.display import Console
from resnet_zoo.training.folders import Plan, work_folder
from resnet_zoo.training.held_images import HeldImages, PlainImages, TrainingImages
from resnet_zoo.training.learner import Learner, repeat_exactly
from resnet_zoo.training.loop import Loop
from resnet_zoo.training.measuring import TestImages
from resnet_zoo.training.order import initial_values
from resnet_zoo.training.snapshots import Position
from resnet_zoo.training.tuning import Tuning
from resnet_zoo.weights.network_file import save_network
from resnet_zoo.zoo import Network

_VARIANT = "class folders"


@dataclass(frozen=True)
class FinetuneResult:
    """What `finetune` returns: the file of a fine-tuned network, and how well it does.

    Attributes:
        path: The file.
        sha256: Its sha256.
        size_bytes: Its size.
        model: The model whose network it is.
        made_from: What it started from: a model and a tag, a file, a repository, or ``fresh values``.
        class_names: In label order.
        num_train: Images trained on.
        num_val: Validation images.
        num_test: Test images, where there were any beside the validation images.
        top1: Top-1 accuracy on the validation images, in percent, in float32; ``None`` if there were none.
        top1_interval: 95% Wilson score interval of ``top1``, in percent; ``None`` if there were none.
        best_epoch: The epoch of the last phase that is the result, from 1; ``None`` without early stopping: the last.
        report: The network on the test images, or on the validation images if there were no others, as `evaluate`
            measures it; ``None`` without any.
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
    num_test: int
    top1: float | None
    top1_interval: tuple[float, float] | None
    best_epoch: int | None
    report: Evaluation | None
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
            seconds, counts, best = 0.0, None, None
            for phase, recipe in phases.items():
                best = self._best_epoch(folder / phase, model) if phase == list(phases)[-1] else None
                position = self._train(model, phase, recipe, training, testing, folder / phase, best)
                seconds += position.seconds
                counts = (position.test_correct1, position.test_correct5)
                if best is not None:
                    found = best.restore()
                    counts = (found.correct1, found.correct5)
                    self.screen.say(f"Epoch {found.epoch + 1} was the best, and is the result")
                if testing is not None:
                    self.screen.say(f"{counts[0]} of {testing.num_images} held-out images correct")
            report = self._report(model, target)
            metadata = self._metadata(plan, None if testing is None else counts, report, best)
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
        correct = None if counts is None or not num_val else counts[0]
        return FinetuneResult(
            path=str(target),
            sha256=sha256,
            size_bytes=target.stat().st_size,
            model=plan.model,
            made_from=plan.made_from,
            class_names=plan.class_names,
            num_train=training.num_images,
            num_val=num_val,
            num_test=len(self.tree.test.paths),
            top1=None if correct is None else 100 * correct / num_val,
            top1_interval=None if correct is None else wilson_interval(correct, num_val),
            best_epoch=None if best is None or best.best is None else best.best.epoch + 1,
            report=report,
            train_seconds=seconds,
            device=plan.device,
        )

    def _best_epoch(self, folder: Path, model: ResNet) -> BestEpoch | None:
        """Return what stops the last phase early, if that was asked for."""
        return BestEpoch(folder, model, self.tuning.patience) if self.tuning.patience else None

    def _report(self, model: ResNet, target: Path) -> Evaluation | None:
        """Measure the network as `evaluate` does its file: on the test images, or else on the validation images."""
        test, tree = self.tree.test.paths, self.tree
        if not test and not tree.val.paths:
            return None
        title = "test" if test else tree.val_folder or "held out"
        images = self._labelled(tree.test if test else tree.val, f"{_VARIANT} ({title})")
        network = replace(self.network, name=str(target), entry=self.entry, class_names=tree.class_names)
        return measure(network, images, model=model, device=self.processes.device)

    def _begin(self) -> ResNet:
        """Return the network with its weights or fresh values, and a fresh classifier."""
        with initial_values(self.seed):
            if self.from_scratch:
                return build(self.entry)
            model = self.network.load()
            model.reset_classifier(self.entry.num_classes)
            return model

    def _training_images(self, root: Path, recipe: Recipe) -> TrainingImages:
        images = self._augmented(root, recipe)
        return ColourImages(images, seed=self.seed) if self.tuning.augmentation == "strong" else images

    def _augmented(self, root: Path, recipe: Recipe) -> TrainingImages:
        """Return the training images at other places, flipped and painted over."""
        augmentation, seed, device = self.tuning.augmentation, self.seed, self.processes.device
        held = self._labelled(self.tree.train)
        if self.entry.preprocess.resize_backend is None:
            return HeldImages(self.entry, held, recipe, seed=seed, device=device, augmentation=augmentation)
        _check_readable(self.tree)
        if augmentation == "none":
            return PlainImages(held, num_workers=self.num_workers)
        source = ImageFiles(root, self.tree.train.paths, self.tree.train.labels)
        return CropImages(
            self.entry,
            source,
            _VARIANT,
            seed=seed,
            num_workers=self.num_workers,
            pin_memory=device.type == "cuda",
            area=LIGHT_AREA if augmentation == "light" else AREA,
        )

    def _held_out(self) -> TestImages | None:
        if not self.tree.val.paths:
            return None
        return TestImages(self.entry, self._labelled(self.tree.val), self.processes, num_workers=self.num_workers)

    def _labelled(self, images: Images, variant: str = _VARIANT) -> LabelledImages:
        labels = np.array(images.labels, dtype=np.int64)
        return LabelledImages(variant, images.paths, labels, self.network.transform.pixels)

    def _class_weights(self) -> Tensor | None:
        """Return how much an image of each class counts, on average over the images as much as one without weights."""
        if self.tuning.class_weights == "none":
            return None
        counts = torch.bincount(torch.tensor(self.tree.train.labels), minlength=len(self.tree.class_names))
        return len(self.tree.train.labels) / (len(counts) * counts.float())

    def _sha256_of_test(self) -> str | None:
        if not self.tree.test.paths:
            return None
        return images_sha256(self._labelled(self.tree.test), by_pixels=self.entry.preprocess.resize_backend is None)

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
            test_sha256=self._sha256_of_test(),
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
        best: BestEpoch | None,
    ) -> Position:
        """Train one phase, from its last checkpoint if there is one, and return where it ended."""
        is_head = phase == "head"
        model.freeze("stage4" if is_head else None)
        learner = Learner(
            model, recipe, self.network.transform.normalise, self.processes, class_weights=self._class_weights()
        )
        most = "at most " if best is not None else ""
        self.screen.say(f"The {'classifier' if is_head else 'whole network'}: {most}{quantity(recipe.epochs, 'epoch')}")
        loop = Loop(
            learner,
            training,
            self.processes,
            folder,
            seed=self.seed,
            size=self.entry.input_size[-1],
            testing=testing,
            best=best,
            watch=self.screen.watch,
            on_line=self.screen.on_line,
            say=self.screen.say,
        )
        return loop.run()

    def _metadata(
        self, plan: Plan, counts: tuple[int, int] | None, report: Evaluation | None, best: BestEpoch | None
    ) -> dict[str, str]:
        """Return the header's texts beside the network's own; no time and no path, so that equal runs are equal."""
        how = {**asdict(plan.tuning), "seed": plan.seed, "num_images": len(self.tree.train.paths)}
        if best is not None and best.best is not None:
            how["best_epoch"] = best.best.epoch + 1
        texts = {
            "finetuned_from": {"weights": plan.made_from, "sha256": plan.weights_sha256},
            "finetuning": how,
            "finetuning_data": {
                "train_sha256": plan.train_sha256,
                "val_sha256": plan.val_sha256,
                "test_sha256": plan.test_sha256,
                "val_share": self.tree.val_share if counts is not None else None,
            },
        }
        has_test = bool(self.tree.test.paths)
        if report is not None and (has_test or counts is not None):
            reported = (report.correct1, report.correct5)
            if counts is not None:
                num_val = len(self.tree.val.paths)
                texts["validation"] = {
                    **self._accuracy(counts if has_test else reported, num_val, plan),
                    "chose_epoch": best is not None,
                }
            if has_test:
                texts["test"] = self._accuracy(reported, report.num_images, plan)
        return {key: json.dumps(value) for key, value in texts.items()}

    @staticmethod
    def _accuracy(counts: tuple[int, int], num_images: int, plan: Plan) -> dict[str, Any]:
        return {
            "num_images": num_images,
            "correct1": counts[0],
            "correct5": counts[1],
            "top1": 100 * counts[0] / num_images,
            "device": plan.device,
            "torch": plan.versions["torch"],
        }


def _check_readable(tree: ClassTree) -> None:
    """Decode every image once, so that a broken one is reported before an epoch begins.

    Raises:
        DatasetError: An image cannot be read; the message names it.
    """
    for _ in map_in_order(decode, [*tree.train.paths, *tree.val.paths, *tree.test.paths], num_threads=num_cores()):
        pass
