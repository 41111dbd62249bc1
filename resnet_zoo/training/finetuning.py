"""Transfer learning: from a network of the zoo and a tree of class folders to a network file for those classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.base.files import check_target
from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.names import kind_of
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.batches import num_cores
from resnet_zoo.images.class_tree import read_class_tree
from resnet_zoo.training.display import Console, Silent
from resnet_zoo.training.tuner import FinetuneResult, Tuner
from resnet_zoo.training.tuning import FRESH, TUNING, Tuning
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
    holds class names, preprocessing, origin, hyperparameters and the accuracy on the images held out, which `verify`
    measures again. The last epoch is the result: nothing is selected on the held-out images, unless `Tuning.patience`
    asks for that; then test images give an honest number. The same call gives the same bits on the same device.

    Checkpoints are kept in a hidden folder beside the target until it is written. After a kill or a stop, the same call
    resumes from the last checkpoint, to the same bits.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        data: The folder of images, see `read_class_tree`. Images may have any size: a network that resizes is trained
            on random resized crops, others (CIFAR's) on images shrunk to their size, padded, cropped and flipped.
        target: The ``.safetensors`` file to write.
        classes: The classes to use, in label order; ``None`` means all, sorted by name.
        weights: For a model: a tag or path, as in `create_model`; ``None`` means its default weights.
        from_scratch: Start from fresh values instead of weights.
        val_share: Share of each class to hold out, 0 to below 1, if no folder holds validation images; ``None`` means
            `VAL_SHARE`, and with a folder of test images these instead.
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
    tuning = tuning or (FRESH if from_scratch else TUNING)
    network = _find_network(name, weights, from_scratch=from_scratch)
    network = replace(network, entry=tuning.resized(network.entry))
    tree = read_class_tree(data, classes=classes, val_share=val_share)
    if tuning.patience and not tree.val.paths:
        raise ArgumentError("Early stopping (a patience) needs validation images. Hold some out, or leave it out.")
    if not from_scratch:
        _ = network.weights  # a fault in them is reported before any image is read
    tuner = Tuner(
        network=network,
        made_from=_origin(network, weights, from_scratch=from_scratch),
        from_scratch=from_scratch,
        tree=tree,
        tuning=tuning,
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
        raise ArgumentError(f"{os.fspath(name)} has its own weights. Leave out from_scratch, or name a model instead.")
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
