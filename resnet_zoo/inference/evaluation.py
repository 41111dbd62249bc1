"""Top-1 and top-5 accuracy, counted as upstream counts them, of every kind of network and by class."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from resnet_zoo.base.devices import device_title, resolve_device
from resnet_zoo.base.machine import versions
from resnet_zoo.base.progress import Progress
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.names import kind_of
from resnet_zoo.catalog.recipes import Precision
from resnet_zoo.catalog.records import used_with
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.class_tree import Images, list_measurable
from resnet_zoo.images.identity import images_sha256
from resnet_zoo.images.test_sets import LabelledImages, batches, open_test_set
from resnet_zoo.inference.calibration import folders_of, made_fast
from resnet_zoo.inference.counted import count_correct, wilson_interval
from resnet_zoo.inference.optimization import OptimizedModel
from resnet_zoo.inference.scores import ClassAccuracy, Confusion, class_accuracies
from resnet_zoo.weights.network_header import RecordedAccuracy
from resnet_zoo.weights.provenance import Chain
from resnet_zoo.zoo import Network, open_network


@dataclass(frozen=True)
class Evaluation:
    """A measured accuracy and everything it depends on.

    Attributes:
        name: The model, or the file or repository as it was named.
        row: The model whose network it is.
        dataset: The images; the bare name of a data set means its complete official test set, and ``class folders
            (test)`` the folder ``test`` of a tree.
        num_images: Images counted.
        correct1: Images whose label is the best class.
        correct5: Images whose label is among the five best classes.
        top1_interval: 95% Wilson score interval of top-1, in percent.
        top5_interval: The same of top-5.
        num_skipped: Images left out because they could not be read.
        skipped: What was wrong with each of them.
        classes: How well each class is recognised, in label order.
        confusion: Images by actual class (rows) and best class (columns).
        calibration_error_pct: How far the probabilities of the best class are from the accuracy, in points: the
            expected calibration error, see `Answers.calibration_error_pct`.
        published_top1: What the publisher of the weights printed for this test size; otherwise the model's number;
            ``None`` for a file or repository.
        published_top5: The same of top-5.
        images_per_s: Images per second, reading and preprocessing included.
        precision: ``float32`` or ``bfloat16``, and what `optimize_for_inference` did if it was used.
        device: The device's name.
        chain: Where the weights come from, every link with its hash; ``None`` for a model passed in.
        versions: Of Python and of the packages that the numbers depend on.

    Example:
        >>> result = resnet_zoo.evaluate("resnet18_cifar10", "cifar10/")
        >>> result.classes[3].name, result.classes[3].num_images, len(result.confusion)
        ('cat', 1, 10)
    """

    name: str
    row: str
    dataset: str
    num_images: int
    correct1: int
    correct5: int
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    num_skipped: int
    skipped: tuple[str, ...]
    classes: tuple[ClassAccuracy, ...]
    confusion: Confusion
    calibration_error_pct: float
    published_top1: str | None
    published_top5: str | None
    images_per_s: float
    precision: str
    device: str
    chain: Chain | None
    versions: dict[str, str]

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct1 / self.num_images

    @property
    def top5(self) -> float:
        """Top-5 accuracy in percent."""
        return 100 * self.correct5 / self.num_images

    @property
    def mean_class_top1(self) -> float:
        """Mean top-1 of the classes that have images, in percent: every class counts alike, however many it has."""
        known = [found.top1 for found in self.classes if found.top1 is not None]
        return sum(known) / len(known)


def evaluate(
    name: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    model: nn.Module | None = None,
    size: int | None = None,
    device: torch.device | str = "auto",
    precision: Precision = "float32",
    fast: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    skip_bad: bool = False,
    partial: bool = False,
    download: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a network on test images, as upstream does: top-1, top-5, each class, confusions and calibration.

    Every image is counted once, with the preprocessing of the weight set: softmax, then the k best classes. As in
    upstream's metric, a class counts only if its probability is above zero, which matters where half precision
    underflows.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        data: The folder of the test images. For a model, and for a network of its classes: see `open_test_set`. For a
            network of other classes: ``test/<class>/<image>``; or ``val``, ``valid`` or ``validation`` instead of
            ``test``; or class folders alone. If the network was trained on these class folders, only the images that
            were held out count.
        weights: A tag or path, as in `create_model`; ``None`` means the model's default weights.
        model: A network to evaluate instead of loading ``weights``, which then only select the preprocessing. An
            optimised network keeps its own precision. The network is left as it was.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        precision: ``float32`` (TF32 off), or ``bfloat16`` for speed.
        fast: Use `optimize_for_inference`, with bfloat16 where the device multiplies it.
        calibration: A folder of images like those to come: compute in 8-bit integers, on a CPU with the extra ``int8``.
        batch_size: Images per forward pass.
        num_workers: Processes that decode images; ``None`` means 0 on a CPU, up to 8 beside an accelerator.
        skip_bad: Count and report unreadable images instead of raising.
        partial: Accept a folder in which classes are missing.
        download: CIFAR only: fetch the official archive if it is missing.
        progress: Called with (images done, images in all) after every batch.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, WeightsMismatchError, DownloadError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `create_model`.
        DatasetError: The images are missing, incomplete or unreadable.
        NonFiniteOutputError: An output is infinite or NaN, as from damaged weights.
        ArgumentError: The weights were not tested at ``size``, the model has another number of classes, the precision
            is unknown or given together with ``fast`` or ``calibration``, a number is out of range, or the device is
            not available.

    Example:
        >>> result = resnet_zoo.evaluate("resnet18_cifar10", "cifar10/")
        >>> print(f"top-1 {result.top1:.2f}%, published {result.published_top1}%")
        top-1 ...%, published 94.82%
        >>> result.num_images, result.dataset
        (10, 'cifar10-png-10images')
    """
    device = resolve_device(device)
    _check_arguments(
        precision, batch_size, num_workers, "int8" if calibration is not None else "fast" if fast else None
    )
    network = _opened(name, weights, size, has_model=model is not None)
    if network.kind == "row":
        images = open_test_set(network.entry, data, skip_bad=skip_bad, partial=partial, download=download)
    else:
        images = images_for(network, data, skip_bad=skip_bad, partial=partial, download=download)
    return measure(
        network,
        images,
        model=model,
        device=device,
        precision=precision,
        fast=fast,
        calibration=calibration,
        batch_size=batch_size,
        num_workers=num_workers,
        progress=progress,
    )


def _opened(
    name: str | os.PathLike[str], weights: str | os.PathLike[str] | None, size: int | None, *, has_model: bool
) -> Network:
    """Open what a name stands for; with a model and without weights, a row's own preprocessing counts."""
    if has_model and weights is None and kind_of(name) == "row":
        return replace(open_network(name), entry=used_with(get_entry(str(name)), None, size=size))
    return open_network(name, weights=weights, size=size)


def images_for(
    network: Network,
    data: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    partial: bool = False,
    download: bool = False,
) -> LabelledImages:
    """Find images for a file or repository: those that it recorded an accuracy on, where they are there.

    Raises:
        DatasetError: As `open_test_set` for a network of the row's classes, else as `list_measurable`.
        ArgumentError: Images of other classes than a row's were to be fetched.
        CheckpointError: What the file recorded makes no sense.
    """
    recorded = RecordedAccuracy.of(network.weights.checkpoint)
    if network.has_classes_of_row and recorded is None:
        images = open_test_set(network.entry, data, skip_bad=skip_bad, partial=partial, download=download)
        images.pixels = network.transform.pixels  # of any size
        return images
    if download:
        raise ArgumentError(f"{network.name} has classes of its own, whose images cannot be fetched.")
    share = recorded.val_share if recorded else None
    found = list_measurable(data, network.class_names, partial=partial, val_share=share)
    sets = {title: _labelled(network, title, images, skip_bad) for title, images in found.items() if images.paths}
    for images in sets.values():
        if recorded is not None and len(images) == recorded.num_images and is_recorded(network, images):
            return images
    sets = {title: images for title, images in sets.items() if title != "held out"} or sets
    return next(iter(sets.values()))


def _labelled(network: Network, title: str, images: Images, skip_bad: bool) -> LabelledImages:
    labels = np.array(images.labels, dtype=np.int64)
    pixels = network.transform.pixels
    return LabelledImages(f"class folders ({title})", images.paths, labels, pixels, skip_bad=skip_bad)


def is_recorded(network: Network, images: LabelledImages) -> bool:
    """Tell whether images are those that a network's file recorded an accuracy on."""
    recorded = RecordedAccuracy.of(network.weights.checkpoint)
    if recorded is None:
        return False
    by_pixels = network.entry.preprocess.resize_backend is None
    with contextlib.suppress(DatasetError, OSError):  # of one that cannot be read, whoever counts it reports that
        return images_sha256(images, by_pixels=by_pixels) == recorded.images_sha256
    return False


def measure(
    network: Network,
    images: LabelledImages,
    *,
    model: nn.Module | None = None,
    device: torch.device,
    precision: Precision = "float32",
    fast: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a network on images that were found for it, as `evaluate` does.

    Raises:
        DatasetError: None of the images can be read.
        ZooError: As `evaluate`.
    """
    entry = network.entry
    chain = network.chain if model is None else None
    model = network.load() if model is None else model
    classes = folders_of(network)
    model = made_fast(model, device, network.transform, fast=fast, calibration=calibration, classes=classes)
    if num_workers is None:
        num_workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    count = count_correct(
        model,
        batches(images, batch_size, num_workers=num_workers, pin_memory=device.type == "cuda"),
        network.transform.normalise,
        device=device,
        precision=precision,
        progress=(lambda done: progress(done, len(images))) if progress else None,
        finite_only=True,
        num_classes=entry.num_classes,
    )
    if not count.num_images:
        raise DatasetError(f"None of the {len(images)} images can be read; first: {count.skipped[0]}")
    confusion = count.answers.confusion(entry.num_classes)
    is_row = network.kind == "row"
    return Evaluation(
        name=network.name,
        row=entry.name,
        dataset=images.variant,
        num_images=count.num_images,
        correct1=count.correct[0],
        correct5=count.correct[1],
        top1_interval=wilson_interval(count.correct[0], count.num_images),
        top5_interval=wilson_interval(count.correct[1], count.num_images),
        num_skipped=len(count.skipped),
        skipped=tuple(count.skipped),
        classes=class_accuracies(confusion, network.class_names),
        confusion=confusion,
        calibration_error_pct=count.answers.calibration_error_pct,
        published_top1=entry.published.top1 if is_row else None,
        published_top5=entry.published.top5 if is_row else None,
        images_per_s=count.num_images / count.seconds,
        precision=model.precision if isinstance(model, OptimizedModel) else precision,
        device=device_title(device),
        chain=chain,
        versions=versions(),
    )


def _check_arguments(precision: str, batch_size: int, num_workers: int | None, mode: str | None) -> None:
    if precision not in ("float32", "bfloat16"):
        raise ArgumentError(f"Expected precision float32 or bfloat16, got {precision!r}.")
    if mode and precision != "float32":
        raise ArgumentError(f"{mode} chooses its own precision; got precision {precision} too. Leave one of them out.")
    if batch_size < 1:
        raise ArgumentError(f"Expected a positive batch size, got {batch_size}.")
    if num_workers is not None and num_workers < 0:
        raise ArgumentError(f"Expected a num_workers of 0 or more, got {num_workers}.")
