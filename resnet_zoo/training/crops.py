"""Random resized crops: where they lie, and the pixels in them.

The rule and the distribution are those of torchvision's and upstream's ``RandomResizedCrop``; the resize is the row's
own. The random numbers of an image follow from (seed, epoch, index) alone, so that neither the number of workers nor
the place where training resumes changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np

from resnet_zoo.catalog.records import ResizeBackend
from resnet_zoo.images.decode import Pixels, check_size, decode_bytes
from resnet_zoo.images.jpeg import can_decode_top, decode_top, size_of_plain_jpeg
from resnet_zoo.images.resize import resize_like_cv2, resize_like_pillow

AREA = (0.08, 1.0)
"""Area of the crop as a share of the image's."""
ASPECT = (3 / 4, 4 / 3)
"""Width over height of the crop, uniform in its logarithm."""

_TRIES = 10
_NUM_UNIFORM = 2 * _TRIES + 3
_RESIZE: dict[ResizeBackend, Callable[..., Pixels]] = {
    "cv2": resize_like_cv2,
    "pillow": resize_like_pillow,
    "pillow_bicubic": partial(resize_like_pillow, bicubic=True),
}


class Crop(NamedTuple):
    """A box in an image, in pixels, and whether what is in it gets mirrored."""

    top: int
    left: int
    height: int
    width: int
    is_flipped: bool


def uniform_numbers(*, seed: int, epoch: int, index: int) -> list[float]:
    """Return the numbers in [0, 1) that one image gets in one epoch.

    Philox is made to be addressed: the seed and the epoch are its key, the image is the counter's second word, and
    the draws count up in the first.
    """
    philox = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, index, 0, 0], np.uint64))
    numbers: list[float] = np.random.Generator(philox).random(_NUM_UNIFORM).tolist()
    return numbers


def choose_crop(height: int, width: int, uniform: list[float]) -> Crop:
    """Choose a crop of an image, after torchvision's ``RandomResizedCrop.get_params``.

    Area and aspect are drawn up to ten times, until the box fits; else the largest central box of permitted aspect
    is taken.

    Args:
        height: Of the image.
        width: Of the image.
        uniform: From `uniform_numbers`.
    """
    flip, at_top, at_left, *draws = uniform
    low, high = (math.log(value) for value in ASPECT)
    for share, shape in zip(draws[::2], draws[1::2], strict=True):
        target = height * width * (AREA[0] + (AREA[1] - AREA[0]) * share)
        ratio = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Crop(int(at_top * (height - h + 1)), int(at_left * (width - w + 1)), h, w, flip < 0.5)
    h, w = min(height, round(width / ASPECT[0])), min(width, round(height * ASPECT[1]))
    return Crop((height - h) // 2, (width - w) // 2, h, w, flip < 0.5)


def crop_and_resize(pixels: Pixels, crop: Crop, size: tuple[int, int], backend: ResizeBackend) -> Pixels:
    """Cut the box out of (H, W, 3) uint8, then resize it to (height, width, 3), then mirror it: upstream's order.

    Pillow's ``resize(box=...)`` would look beyond the box.
    """
    box = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    return _RESIZE[backend](box, *size, flip=crop.is_flipped)


def read_crop(
    data: Pixels, uniform: list[float], size: tuple[int, int], backend: ResizeBackend, *, title: str
) -> Pixels:
    """Decode an image file's bytes and take its random resized crop: (height, width, 3) uint8 RGB.

    The rows below the crop are not decoded where that leaves every pixel as it is (see `jpeg.decode_top`).

    Args:
        data: The bytes of the file, (n,) uint8.
        uniform: From `uniform_numbers`.
        size: Height and width of the result.
        backend: The row's.
        title: What an error calls the image.

    Raises:
        DatasetError: The image cannot be decoded.
    """
    image_size = size_of_plain_jpeg(data) if can_decode_top() else None
    if image_size is not None:
        check_size(*image_size, title)
        crop = choose_crop(*image_size, uniform)
        with suppress(ValueError):  # what is wrong with the file, the other decoder says, or it can read it
            return crop_and_resize(decode_top(data, crop.top + crop.height), crop, size, backend)
    pixels = decode_bytes(data, title)
    height, width, _ = pixels.shape
    return crop_and_resize(pixels, choose_crop(height, width, uniform), size, backend)
