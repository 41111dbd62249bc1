"""Transfer: a network of the zoo, a tree of class folders, and a network file that tells those classes apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.base.files import check_target
from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.names import kind_of
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.batches import num_cores
from resnet_zoo.images.class_tree import read_class_tree
from resnet_zoo.training.console import Console, Silent
from resnet_zoo.training.tuner import FinetuneResult, Tuner
from resnet_zoo.tuning import FRESH, TUNING, Tuning
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
    """Train a new classifier, then the whole network, to tell the classes of a tree of folders apart.

    The file is one that `create_model`, `predict`, `embed` and others take in place of a name. Its header says class
    names, preprocessing, what it was made from, how, and the accuracy on the held-out images. The last epoch is the
    result: the held-out images choose nothing. The same call gives the same bits on the same device.

    A hidden folder beside the target keeps checkpoints until the file is there. Killed or stopped, the same call goes
    on from the last one, to the same bits.

    Args:
        name: A row or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        data: The folder of images, see `read_class_tree`. Images of any size: a network that resizes is trained on
            random resized crops, another (CIFAR's) on images shrunk to its size, padded, cropped and flipped.
        target: The ``.safetensors`` file to write.
        classes: The classes to use, in label order; ``None`` means all, sorted by name.
        weights: For a row: a tag or path, as in `create_model`; ``None`` means its default weights.
        from_scratch: Begin with fresh values instead of weights.
        val_share: Share of each class to hold out where the tree holds no ``val`` or ``test`` folder.
        tuning: How; ``None`` means `TUNING`, or `FRESH` from scratch.
        seed: Of the new values, the order and the augmentation.
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        num_workers: Processes that decode images for a network that resizes; ``None``: one per core.
        overwrite: Replace a target that exists, and drop an unfinished training that began otherwise.
        screen: Told about the progress; ``None`` for nobody.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, DownloadError, WeightsMismatchError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `open_network`.
        DatasetError: The images are missing, of fewer than two classes, or unreadable.
        ArgumentError: A target that cannot be, classes without a folder, or a value out of range.
        TrainingError: Another process is writing the target, or an unfinished training began otherwise; or the training
            was stopped (`TrainingStopped`) or diverged (`NonFiniteLossError`).
        OSError: The target cannot be written; the last checkpoint is kept.
    """
    target = Path(target)
    check_target(target, (".safetensors",), overwrite=overwrite)
    network = _find_network(name, weights, from_scratch=from_scratch)
    tree = read_class_tree(data, classes=classes, val_share=val_share)
    if not from_scratch:
        _ = network.weights  # what is wrong with them is to be known before any image is read
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
        raise ArgumentError(f"Weights ({os.fspath(weights)}) and from_scratch exclude each other. Leave out one.")
    if from_scratch and kind_of(name) != "row":
        raise ArgumentError(f"{os.fspath(name)} has its own weights. Leave out from_scratch, or name a row instead.")
    network = open_network(name, weights=weights)
    _ = network.transform  # refuses a network for other images than RGB
    return network


def _origin(network: Network, weights: str | os.PathLike[str] | None, *, from_scratch: bool) -> str:
    """Name what a training begins with; files without their folders."""
    if from_scratch:
        return "fresh values"
    kind = kind_of(network.name)
    if kind == "row":
        return f"{network.entry.name} {Path(weights).name if weights is not None else network.entry.default_weights}"
    return network.name if kind == "repository" else Path(network.name).name


def _alone(device: str) -> Processes:
    if os.environ.get("WORLD_SIZE") not in (None, "", "1"):
        raise ArgumentError("Fine-tuning uses one device. Start it without torchrun.")
    return Processes(0, 1, resolve_device(device))
