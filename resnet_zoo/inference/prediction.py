"""Images classified: the best classes of each, with their probabilities."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from resnet_zoo.base.devices import borrowed, exact_float32, resolve_device
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.batches import ImageBatch, OnBad, batched, map_in_order, num_cores, read_batch
from resnet_zoo.images.listing import IMAGE_COLUMN, find_all, with_bytes
from resnet_zoo.images.transform import ImageSource, each_image
from resnet_zoo.inference.calibration import folders_of, made_fast
from resnet_zoo.inference.finite import check_finite
from resnet_zoo.zoo import Network, open_network


@dataclass(frozen=True)
class ClassScore:
    """One class of a prediction: its label, its name, its softmax probability."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, best first; none, if all are below the threshold."""

    image: str
    classes: tuple[ClassScore, ...]


def predict(
    name: str | os.PathLike[str],
    images: ImageSource | Iterable[ImageSource],
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    model: nn.Module | None = None,
    top_k: int | None = None,
    threshold: float = 0.0,
    device: torch.device | str = "auto",
    batch_size: int = 16,
    fast: bool = False,
    image_column: str = IMAGE_COLUMN,
    calibration: str | os.PathLike[str] | None = None,
    on_bad: OnBad | None = None,
) -> list[Prediction]:
    """Classify images with a network and its own preprocessing.

    For CIFAR models, whose inputs are 32x32, other images are resized to that.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        images: One image or several: paths, bytes of image files, PIL images, (H, W, 3) uint8 RGB arrays or (3, H, W)
            uint8 tensors; several also as an array of paths, or as one array (N, H, W, 3) or tensor (N, 3, H, W). A
            path may also be a folder, a shard or an address, as in `embed_files`.
        weights: A tag or path, as in `create_model`; ``None`` means the model's default weights.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        model: A network to use instead of loading ``weights``, in eval mode and on the device; it is left as it was,
            and moved for every batch if it was elsewhere.
        top_k: Classes per image; ``None`` means five, or all if there are fewer or a threshold is given.
        threshold: Leave out classes with a lower probability, and so all of them for some images.
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        batch_size: Images per forward pass.
        fast: Use `optimize_for_inference`, with bfloat16 where the device multiplies it.
        image_column: The column of parquet files with the images, as in `embed_files`.
        calibration: A folder of images like those to come: compute in 8-bit integers, on a CPU with the extra ``int8``.
        on_bad: Called with the error of each unreadable image, which is then left out, instead of raising it.

    Returns:
        One prediction per readable image, in order.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, WeightsMismatchError, DownloadError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `open_network`.
        DatasetError: An image is missing or unreadable; or a folder or shard, as in `embed_files`.
        NonFiniteOutputError: An output is infinite or NaN, as from damaged weights.
        ArgumentError: The weights were not tested at ``size``, ``top_k`` is not between 1 and the number of classes,
            ``threshold`` is not from 0 to 1, the batch size is not positive, the network does not take RGB images,
            ``model`` has another number of classes, or the device is not available.

    Example:
        >>> (prediction,) = resnet_zoo.predict("resnet18_cifar10", "photo.jpg", top_k=1)
        >>> prediction.classes
        (ClassScore(label=..., name='...', probability=...),)
    """
    return list(
        stream_predictions(
            name,
            each_image(images),
            weights=weights,
            size=size,
            model=model,
            top_k=top_k,
            threshold=threshold,
            device=device,
            batch_size=batch_size,
            fast=fast,
            image_column=image_column,
            calibration=calibration,
            on_bad=on_bad,
        )
    )


def stream_predictions(
    name: str | os.PathLike[str],
    images: Iterable[ImageSource],
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    model: nn.Module | None = None,
    top_k: int | None = None,
    threshold: float = 0.0,
    device: torch.device | str = "auto",
    batch_size: int = 16,
    fast: bool = False,
    image_column: str = IMAGE_COLUMN,
    calibration: str | os.PathLike[str] | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[Prediction]:
    """Classify any number of images one by one, holding only a few batches in memory.

    The arguments are checked and the network is loaded by the call; images are read as predictions are taken.

    Args:
        name, weights, size, model, top_k, threshold, device, batch_size, fast, image_column, calibration, on_bad: As in
            `predict`.
        images: An iterable of images, of the kinds that `predict` takes.

    Yields:
        One prediction per readable image, in order.

    Raises:
        ZooError: As `predict`; errors about an image are raised when its turn comes.

    Example:
        >>> for prediction in resnet_zoo.stream_predictions("resnet18_cifar10", sorted(Path("photos").glob("*.jpg"))):
        ...     print(prediction.image, prediction.classes[0].name)
        photos/a.jpg ...
        photos/b.jpg ...
    """
    network = open_network(name, weights=weights, size=size)
    num_classes = network.entry.num_classes
    if not 0 <= threshold <= 1:
        raise ArgumentError(f"Expected a threshold of 0 to 1, got {threshold}.")
    if top_k is None:
        top_k = num_classes if threshold else min(5, num_classes)
    if not 1 <= top_k <= num_classes:
        raise ArgumentError(f"Expected a top_k of 1 to {num_classes}, the classes of {network.name}; got {top_k}.")
    if batch_size < 1:
        raise ArgumentError(f"Expected a positive batch size, got {batch_size}.")
    device, transform = resolve_device(device), network.transform
    transform.notice = network.notice
    model = network.load().to(device).eval() if model is None else model
    classes = folders_of(network)
    model = made_fast(model, device, transform, fast=fast, calibration=calibration, classes=classes)
    found = batched(with_bytes(find_all(images, column=image_column)), batch_size)
    batches = map_in_order(partial(read_batch, transform=transform), found, num_threads=num_cores())
    return _predictions(network, model, device, batches, top_k, threshold, on_bad)


def _predictions(
    network: Network,
    model: nn.Module,
    device: torch.device,
    batches: Iterator[ImageBatch],
    top_k: int,
    threshold: float,
    on_bad: OnBad | None,
) -> Iterator[Prediction]:
    normalise = network.transform.normalise
    for batch in batches:
        batch.report_bad(on_bad)
        if not batch.titles:
            continue
        with borrowed(model):
            model.to(device).eval()
            with torch.inference_mode(), exact_float32(device):
                x = normalise(batch.pixels.to(device))
                logits = model(x)
                check_finite(logits, model, x)
        expected = len(network.class_names)
        if logits.shape[1] != expected:
            raise ArgumentError(
                f"The model has {logits.shape[1]} classes; expected {expected}, those of {network.name}."
            )
        yield from _best_classes(batch.titles, logits, top_k, threshold, network.class_names)


def _best_classes(
    titles: list[str], logits: Tensor, top_k: int, threshold: float, names: tuple[str, ...]
) -> Iterator[Prediction]:
    """Yield the best classes of each image for logits (N, K)."""
    scores, labels = logits.float().softmax(dim=1).topk(top_k, dim=1)
    for title, row, probabilities in zip(titles, labels.tolist(), scores.tolist(), strict=True):
        found = zip(row, probabilities, strict=True)
        classes = (
            ClassScore(label, names[label], probability) for label, probability in found if probability >= threshold
        )
        yield Prediction(title, tuple(classes))
