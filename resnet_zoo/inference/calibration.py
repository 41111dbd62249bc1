"""A network made fast on request: with fewer bits where the device multiplies them, or in 8-bit integers.

The latter need images like those to come, which set the range of every map. Where these lie in folders named like the
network's classes, they tell its accuracy too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import PurePath
from typing import NamedTuple

import torch
from torch import Tensor, nn

from resnet_zoo.base.devices import borrowed, fast_dtype
from resnet_zoo.base.shown import quantity
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.batches import batched, map_in_order, num_cores, read_batch
from resnet_zoo.images.folders import find_images
from resnet_zoo.images.listing import check_there
from resnet_zoo.images.transform import Transform
from resnet_zoo.inference.optimization import OptimizedModel, check_dtype, optimize_for_inference
from resnet_zoo.inference.quantization import NUM_IMAGES
from resnet_zoo.zoo import Network

NUM_LABELLED = 1000
"""How many images are taken of class folders: one of them is a third of the drop in accuracy that is accepted."""

_LEAST_IMAGES, _BATCH_SIZE = 10, 16


class Calibration(NamedTuple):
    """Images of a folder.

    Attributes:
        images: Normalised (N, C, H, W).
        labels: Of the images (N,), if all lie in class folders.
    """

    images: Tensor
    labels: Tensor | None


def folders_of(network: Network) -> Sequence[str]:
    """Return the names of the folders that hold images of a network's classes, in label order."""
    return class_folders(network.entry.classes) if network.has_classes_of_row else network.class_names


def made_fast(
    model: nn.Module,
    device: torch.device,
    transform: Transform,
    *,
    fast: bool,
    calibration: str | os.PathLike[str] | None,
    classes: Sequence[str] = (),
) -> nn.Module:
    """Return a network optimised for inference if that was asked for and it is not yet; itself otherwise.

    Args:
        model: It is left as it was.
        device: Where it will run.
        transform: How an image gets in.
        fast: Use bfloat16 where the device multiplies it.
        calibration: A folder of images: compute in 8-bit integers.
        classes: As `read_calibration`, of a network that returns logits.

    Raises:
        ArgumentError: As `optimize_for_inference` and `read_calibration`.
        DatasetError: As `read_calibration`.
    """
    if calibration is None and (not fast or isinstance(model, OptimizedModel)):
        return model
    if calibration is None:
        images, labels, dtype = None, None, fast_dtype(device)
    else:
        check_dtype(torch.int8, device)  # before the images are read
        (images, labels), dtype = read_calibration(calibration, transform, classes), torch.int8
    with borrowed(model):
        return optimize_for_inference(model.to(device), dtype=dtype, calibration=images, labels=labels)


def read_calibration(folder: str | os.PathLike[str], transform: Transform, classes: Sequence[str] = ()) -> Calibration:
    """Return at most `NUM_IMAGES` of the images below a folder, from all parts of it; `NUM_LABELLED` with labels.

    Args:
        folder: The folder.
        transform: How an image gets in.
        classes: Names of the folders of each class, in label order: the images have labels if all lie in such folders.

    Raises:
        DatasetError: The folder does not exist or holds no images, or one of those taken is unreadable.
        ArgumentError: There are too few.
    """
    check_there([folder])
    paths = list(find_images([folder]))
    if len(paths) < _LEAST_IMAGES:
        raise ArgumentError(
            f"{os.fspath(folder)} holds {quantity(len(paths), 'image')}; int8 needs "
            f"{_LEAST_IMAGES} or more like those to come, and takes up to {NUM_IMAGES}. Put more there."
        )
    label_of = {name: label for label, name in enumerate(classes)}
    are_labelled = all(PurePath(path).parent.name in label_of for path in paths)
    most = NUM_LABELLED if are_labelled else NUM_IMAGES
    if len(paths) > most:
        paths = [paths[index * len(paths) // most] for index in range(most)]
    read = map_in_order(partial(read_batch, transform=transform), batched(paths, _BATCH_SIZE), num_threads=num_cores())
    pixels: list[Tensor] = []
    for batch in read:
        batch.report_bad(None)
        pixels.append(batch.pixels)
    labels = torch.tensor([label_of[PurePath(path).parent.name] for path in paths]) if are_labelled else None
    return Calibration(transform.normalise(torch.cat(pixels)), labels)
