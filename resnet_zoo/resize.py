"""Bilinear resize and centre crop, bit for bit as OpenCV and as Pillow do them. Images are (H, W, 3) uint8."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnet_zoo.decode import MAX_PIXELS, Pixels
from resnet_zoo.errors import DatasetError


def resized_size(height: int, width: int, short_edge: int) -> tuple[int, int]:
    """Return (height, width) with the short edge as given and the long edge truncated, as mmpretrain's
    ``ResizeEdge`` and torchvision's ``Resize`` do."""
    if width < height:
        return int(short_edge * height / width), short_edge
    return short_edge, int(short_edge * width / height)


def crop_start(length: int, crop: int) -> int:
    """Return where a centre crop starts; halves go to the even number (Python's ``round``), as upstream."""
    return round((length - crop) / 2)


def resize_crop_like_pillow(pixels: Pixels, short_edge: int, crop: int) -> Pixels:
    """Resize with Pillow's antialiased bilinear filter and take the centre crop: (H, W, 3) to (crop, crop, 3)."""
    height, width = resized_size(pixels.shape[0], pixels.shape[1], short_edge)
    _check_resized_size(height, width)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    left, top = crop_start(width, crop), crop_start(height, crop)
    return np.array(image.crop((left, top, left + crop, top + crop)))


def resize_crop_like_cv2(pixels: Pixels, short_edge: int, crop: int) -> Pixels:
    """Resize as ``cv2.resize(..., INTER_LINEAR)`` and take the centre crop: (H, W, 3) to (crop, crop, 3).

    OpenCV's fixed-point arithmetic, restated (Apache-2.0, ``imgproc/src/resize.cpp``), only for the pixels inside
    the crop. Horizontal sums keep 11 fractional bits; vertically each row is cut to 7 of them, weighted, cut to 2,
    and the sum of both rounded.
    """
    height, width = pixels.shape[:2]
    plan = _plan_cv2(height, width, short_edge, crop)
    if plan is None:
        return _shrink_by_two_or_copy(pixels, short_edge, crop)
    rows = pixels[plan.first_row : plan.last_row].reshape(plan.last_row - plan.first_row, width * 3)
    sums = rows.take(plan.left, axis=1, mode="clip").astype(np.int32)
    sums *= plan.left_weight
    right = rows.take(plan.right, axis=1, mode="clip").astype(np.int32)
    right *= plan.right_weight
    sums += right
    sums >>= 4
    upper = sums[plan.upper]
    upper *= plan.upper_weight
    upper >>= 16
    lower = sums[plan.lower]
    lower *= plan.lower_weight
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    cropped: Pixels = upper.astype(np.uint8).reshape(crop, crop, 3)
    return cropped


@dataclass(frozen=True)
class _Cv2Plan:
    """Where each output value finds its two source columns and rows, and their weights in 1/2048.

    Columns count values (3 per pixel), rows count from ``first_row``.
    """

    first_row: int
    last_row: int
    left: npt.NDArray[np.intp]
    right: npt.NDArray[np.intp]
    left_weight: npt.NDArray[np.int32]
    right_weight: npt.NDArray[np.int32]
    upper: npt.NDArray[np.intp]
    lower: npt.NDArray[np.intp]
    upper_weight: npt.NDArray[np.int32]
    lower_weight: npt.NDArray[np.int32]


@functools.lru_cache(maxsize=1024)
def _plan_cv2(height: int, width: int, short_edge: int, crop: int) -> _Cv2Plan | None:
    """Return the taps for an image size, or ``None`` for the two sizes that OpenCV treats apart."""
    new_height, new_width = resized_size(height, width, short_edge)
    _check_resized_size(new_height, new_width)
    if (height, width) in ((new_height, new_width), (2 * new_height, 2 * new_width)):
        return None
    left, right, left_weight, right_weight = _taps(width, new_width, crop, clamp_weights=True)
    upper, lower, upper_weight, lower_weight = _taps(height, new_height, crop, clamp_weights=False)
    first_row = int(upper[0])
    channels = np.arange(3)
    return _Cv2Plan(
        first_row=first_row,
        last_row=int(lower[-1]) + 1,
        left=(left[:, None] * 3 + channels).ravel(),
        right=(right[:, None] * 3 + channels).ravel(),
        left_weight=left_weight.repeat(3),
        right_weight=right_weight.repeat(3),
        upper=upper - first_row,
        lower=lower - first_row,
        upper_weight=upper_weight[:, None],
        lower_weight=lower_weight[:, None],
    )


def _taps(
    source: int, target: int, crop: int, *, clamp_weights: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the two source indices and integer weights of each target position inside the crop.

    At the borders OpenCV clamps the indices, and horizontally the fraction too; vertically it keeps the fraction.
    """
    start = crop_start(target, crop)
    scale = 1.0 / (target / source)
    position = ((np.arange(start, start + crop) + 0.5) * scale - 0.5).astype(np.float32)
    index = np.floor(position).astype(np.intp)
    fraction = (position - index).astype(np.float32)
    if clamp_weights:
        fraction[(index < 0) | (index >= source - 1)] = 0
    one = np.float32(1)
    weights = (np.rint(part * np.float32(2048)).astype(np.int32) for part in (one - fraction, fraction))
    return index.clip(0, source - 1), (index + 1).clip(0, source - 1), *weights


def _shrink_by_two_or_copy(pixels: Pixels, short_edge: int, crop: int) -> Pixels:
    """Resize and crop at the two exact ratios: the same size is a copy, half the size the mean of 2x2 values."""
    ratio = min(pixels.shape[:2]) // short_edge
    top, left = (crop_start(length // ratio, crop) * ratio for length in pixels.shape[:2])
    window = pixels[top : top + crop * ratio, left : left + crop * ratio]
    if ratio == 1:
        return window.copy()
    blocks = window.reshape(crop, 2, crop, 2, 3).astype(np.uint16)
    means: Pixels = ((blocks.sum(axis=(1, 3), dtype=np.uint16) + 2) >> 2).astype(np.uint8)
    return means


def _check_resized_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DatasetError(
            f"would become {width}x{height} pixels when its short edge is resized; the limit is {MAX_PIXELS}. Crop it "
            "to a less extreme shape first."
        )
