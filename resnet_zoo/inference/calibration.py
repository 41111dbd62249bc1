"""A network made fast on request: with fewer bits where the device multiplies them, or in 8-bit integers.

The latter need images like those to come, which set the range of every map.
"""

from __future__ import annotations

import os
from functools import partial

import torch
from torch import Tensor, nn

from resnet_zoo.base.devices import borrowed, fast_dtype
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.batches import batched, map_in_order, num_cores, read_batch
from resnet_zoo.images.folders import find_images
from resnet_zoo.images.listing import check_there
from resnet_zoo.images.transform import Transform
from resnet_zoo.inference.optimization import OptimizedModel, optimize_for_inference

NUM_IMAGES = 300
"""How many images of a folder are taken: NNCF's own number."""

_LEAST_IMAGES, _BATCH_SIZE = 10, 16


def made_fast(
    model: nn.Module,
    device: torch.device,
    transform: Transform,
    *,
    fast: bool,
    calibration: str | os.PathLike[str] | None,
) -> nn.Module:
    """Return a network optimised for inference if that was asked for and it is not yet; itself otherwise.

    Args:
        model: It is left as it was.
        device: Where it will run.
        transform: How an image gets in.
        fast: Use bfloat16 where the device multiplies it.
        calibration: A folder of images: compute in 8-bit integers.

    Raises:
        ArgumentError: As `optimize_for_inference` and `read_calibration`.
        DatasetError: As `read_calibration`.
    """
    if calibration is None and (not fast or isinstance(model, OptimizedModel)):
        return model
    images = None if calibration is None else read_calibration(calibration, transform)
    dtype = fast_dtype(device) if images is None else torch.int8
    with borrowed(model):
        return optimize_for_inference(model.to(device), dtype=dtype, calibration=images)


def read_calibration(folder: str | os.PathLike[str], transform: Transform) -> Tensor:
    """Return at most `NUM_IMAGES` of the images below a folder, from all parts of it, normalised (N, C, H, W).

    Raises:
        DatasetError: The folder does not exist or holds no images, or one of those taken is unreadable.
        ArgumentError: There are too few.
    """
    check_there([folder])
    paths = list(find_images([folder]))
    if len(paths) < _LEAST_IMAGES:
        raise ArgumentError(
            f"{os.fspath(folder)} holds {len(paths)} images; int8 needs {_LEAST_IMAGES} or more like those to come, "
            f"and takes up to {NUM_IMAGES}."
        )
    if len(paths) > NUM_IMAGES:
        paths = [paths[index * len(paths) // NUM_IMAGES] for index in range(NUM_IMAGES)]
    read = map_in_order(partial(read_batch, transform=transform), batched(paths, _BATCH_SIZE), num_threads=num_cores())
    pixels: list[Tensor] = []
    for batch in read:
        batch.report_bad(None)
        pixels.append(batch.pixels)
    return transform.normalise(torch.cat(pixels))
