"""What is in these images?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from resnet_zoo.decode import title_of
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.inference import fast_dtype, optimize_for_inference
from resnet_zoo.manifest import class_names, get_entry
from resnet_zoo.preprocess import ImageSource, Transform
from resnet_zoo.zoo import create_model, resolve_device

SINGLE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
"""The types of one image; anything else is taken for several."""


@dataclass(frozen=True)
class ClassScore:
    """One class of a prediction: its label, its name, its softmax probability."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, best first."""

    image: str
    classes: tuple[ClassScore, ...]


def predict(
    name: str,
    images: ImageSource | Iterable[ImageSource],
    *,
    weights: str | os.PathLike[str] | None = None,
    model: nn.Module | None = None,
    top_k: int = 5,
    device: torch.device | str = "auto",
    batch_size: int = 16,
    fast: bool = False,
    on_bad: Callable[[DatasetError], None] | None = None,
) -> list[Prediction]:
    """Classify images with a row, its own preprocessing included.

    CIFAR rows, made for 32x32 images, take others shrunk to that size.

    Args:
        name: A row or alias.
        images: One image or several: paths, bytes of image files, PIL images, or (H, W, 3) uint8 RGB arrays.
        weights: A tag or path, as in `create_model`; ``None`` means the row's default weights.
        model: A network to use instead of loading ``weights``.
        top_k: How many classes per image.
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        batch_size: Images per forward pass.
        fast: Use `optimize_for_inference`, with bfloat16 where the device multiplies it.
        on_bad: Called with the error of each unreadable image, which is then left out, instead of raising it.

    Returns:
        One prediction per readable image, in order.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, WeightsMismatchError, IntegrityError,
            UnsafeCheckpointError, CheckpointError: As `create_model`.
        DatasetError: An image is missing or unreadable.
        ArgumentError: ``top_k`` is not between 1 and the number of classes, or the device is not there.
    """
    entry = get_entry(name)
    if not 1 <= top_k <= entry.num_classes:
        raise ArgumentError(f"Expected a top_k of 1 to {entry.num_classes}, the classes of {entry.name}; got {top_k}.")
    if batch_size < 1:
        raise ArgumentError(f"Expected a positive batch size, got {batch_size}.")
    device = resolve_device(device)
    if model is None:
        model = create_model(name, pretrained=True, weights=weights)
    model = model.to(device).eval()
    if fast:
        model = optimize_for_inference(model, dtype=fast_dtype(device))
    transform = Transform(entry.preprocess, entry.input_size, any_size=True)
    names = class_names(entry.classes)
    sources = [images] if isinstance(images, SINGLE) else list(images)
    predictions: list[Prediction] = []
    for titles, inputs in _input_batches(sources, transform, batch_size, on_bad):
        with torch.inference_mode():
            logits = model(inputs.to(device))
        if logits.shape[1] != entry.num_classes:
            raise ArgumentError(
                f"The model has {logits.shape[1]} classes; expected {entry.num_classes}, those of {name}."
            )
        scores, labels = logits.float().softmax(dim=1).topk(top_k, dim=1)
        for title, row, probabilities in zip(titles, labels.tolist(), scores.tolist(), strict=True):
            classes = zip(row, probabilities, strict=True)
            found = tuple(ClassScore(label, names[label], probability) for label, probability in classes)
            predictions.append(Prediction(title, found))
    return predictions


def _input_batches(
    sources: list[ImageSource], transform: Transform, batch_size: int, on_bad: Callable[[DatasetError], None] | None
) -> Iterator[tuple[list[str], torch.Tensor]]:
    for start in range(0, len(sources), batch_size):
        titles, inputs = [], []
        for source in sources[start : start + batch_size]:
            try:
                inputs.append(transform(source))
                titles.append(title_of(source))
            except DatasetError as error:
                if on_bad is None:
                    raise
                on_bad(error)
        if inputs:
            yield titles, torch.stack(inputs)
