"""Bilinear resize, of a whole image or of its centre crop, bit for bit as OpenCV and as Pillow do it.

Images are (H, W, 3) uint8.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import MAX_PIXELS, Pixels


def resized_size(height: int, width: int, short_edge: int) -> tuple[int, int]:
    """Return (height, width) with the short edge as given and the long edge truncated, as mmpretrain's
    ``ResizeEdge`` and torchvision's ``Resize`` do."""
    if width < height:
        return int(short_edge * height / width), short_edge
    return short_edge, int(short_edge * width / height)


def crop_start(length: int, crop: int) -> int:
    """Return where a centre crop starts; halves go to the even number (Python's ``round``), as upstream."""
    return round((length - crop) / 2)


def resize_crop_like_pillow(pixels: Pixels, short_edge: int, crop: int, *, bicubic: bool = False) -> Pixels:
    """Resize with Pillow's bilinear or bicubic filter, both antialiased, and take the centre crop.

    Args:
        pixels: (H, W, 3) uint8.
        short_edge: Pixels of the short edge after the resize.
        crop: Pixels of the crop's edge.
        bicubic: Which filter.

    Returns:
        (crop, crop, 3) uint8.
    """
    height, width = resized_size(pixels.shape[0], pixels.shape[1], short_edge)
    _check_resized_size(height, width)
    image = Image.fromarray(pixels).resize((width, height), _filter(bicubic=bicubic))
    left, top = crop_start(width, crop), crop_start(height, crop)
    return np.array(image.crop((left, top, left + crop, top + crop)))


def resize_crop_like_cv2(pixels: Pixels, short_edge: int, crop: int) -> Pixels:
    """Resize as ``cv2.resize(..., INTER_LINEAR)`` and take the centre crop: (H, W, 3) to (crop, crop, 3)."""
    height, width = resized_size(pixels.shape[0], pixels.shape[1], short_edge)
    _check_resized_size(height, width)
    return _window_like_cv2(pixels, _centre(height, crop), _centre(width, crop))


def resize_like_cv2(pixels: Pixels, height: int, width: int, *, flip: bool = False) -> Pixels:
    """Resize as ``cv2.resize(..., INTER_LINEAR)``, then mirror if asked: (H, W, 3) to (height, width, 3).

    OpenCV itself does it where it is installed and gives the same bits, in a fifth of the time.
    """
    cv2 = _cv2_that_agrees()
    if cv2 is None:
        return _window_like_cv2(pixels, _Window(height, 0, height), _Window(width, 0, width, flip))
    resized: Pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(resized, 1) if flip else resized


def resize_like_pillow(pixels: Pixels, height: int, width: int, *, flip: bool = False, bicubic: bool = False) -> Pixels:
    """Resize with Pillow's bilinear or bicubic filter, both antialiased, then mirror if asked.

    Takes (H, W, 3) uint8 and returns (height, width, 3).
    """
    image = Image.fromarray(pixels).resize((width, height), _filter(bicubic=bicubic))
    return np.array(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image)


def _filter(*, bicubic: bool) -> Image.Resampling:
    return Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR


class _Window(NamedTuple):
    """The part wanted of one axis: ``length`` from ``start`` on, once the axis is resized to ``size``."""

    size: int
    start: int
    length: int
    is_flipped: bool = False


def _centre(size: int, length: int) -> _Window:
    return _Window(size, crop_start(size, length), length)


def _window_like_cv2(pixels: Pixels, rows: _Window, columns: _Window) -> Pixels:
    """Resize (H, W, 3) as ``cv2.resize(..., INTER_LINEAR)``, only the pixels inside the windows.

    OpenCV's fixed-point arithmetic, restated (Apache-2.0, ``imgproc/src/resize.cpp``). Horizontal sums keep 11
    fractional bits; vertically each row is cut to 7 of them, weighted, cut to 2, and the sum of both rounded.
    """
    height, width = pixels.shape[:2]
    for ratio in (1, 2):  # the two exact ratios that OpenCV treats apart
        if (height, width) == (ratio * rows.size, ratio * columns.size):
            return _shrink_by_two_or_copy(pixels, ratio, rows, columns)
    across, down = _taps_across(width, columns), _taps_down(height, rows)
    first_row, last_row = int(down.first[0]), int(down.second[-1]) + 1
    values = pixels[first_row:last_row].reshape(last_row - first_row, width * 3)
    sums = values.take(across.first, axis=1, mode="clip").astype(np.int32)
    sums *= across.first_weight
    right = values.take(across.second, axis=1, mode="clip").astype(np.int32)
    right *= across.second_weight
    sums += right
    sums >>= 4
    upper = sums[down.first - first_row]
    upper *= down.first_weight
    upper >>= 16
    lower = sums[down.second - first_row]
    lower *= down.second_weight
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    resized: Pixels = upper.astype(np.uint8).reshape(rows.length, columns.length, 3)
    return resized


class _Taps(NamedTuple):
    """Where each output value of an axis finds its two source values, and their weights in 1/2048."""

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    first_weight: npt.NDArray[np.int32]
    second_weight: npt.NDArray[np.int32]


@functools.lru_cache(maxsize=1024)
def _taps_across(width: int, window: _Window) -> _Taps:
    """Return the taps of a row of pixels, counted in values: 3 per pixel."""
    taps = _taps(width, window, clamp_weights=True)
    step = -1 if window.is_flipped else 1
    channels = np.arange(3)
    return _Taps(
        (taps.first[::step, None] * 3 + channels).ravel(),
        (taps.second[::step, None] * 3 + channels).ravel(),
        taps.first_weight[::step].repeat(3),
        taps.second_weight[::step].repeat(3),
    )


@functools.lru_cache(maxsize=1024)
def _taps_down(height: int, window: _Window) -> _Taps:
    """Return the taps of a column, their weights as columns too."""
    first, second, first_weight, second_weight = _taps(height, window, clamp_weights=False)
    return _Taps(first, second, first_weight[:, None], second_weight[:, None])


def _taps(source: int, window: _Window, *, clamp_weights: bool) -> _Taps:
    """Return the taps of an axis of ``source`` values.

    At the borders OpenCV clamps the indices, and horizontally the fraction too; vertically it keeps the fraction.
    """
    scale = 1.0 / (window.size / source)
    positions = np.arange(window.start, window.start + window.length)
    position = ((positions + 0.5) * scale - 0.5).astype(np.float32)
    index = np.floor(position).astype(np.intp)
    fraction = (position - index).astype(np.float32)
    if clamp_weights:
        fraction[(index < 0) | (index >= source - 1)] = 0
    one = np.float32(1)
    weights = (np.rint(part * np.float32(2048)).astype(np.int32) for part in (one - fraction, fraction))
    return _Taps(index.clip(0, source - 1), (index + 1).clip(0, source - 1), *weights)


def _shrink_by_two_or_copy(pixels: Pixels, ratio: int, rows: _Window, columns: _Window) -> Pixels:
    """Resize at the two exact ratios: the same size is a copy, half the size the mean of 2x2 values."""
    down, across = (slice(axis.start * ratio, (axis.start + axis.length) * ratio) for axis in (rows, columns))
    window = pixels[down, across]
    if ratio == 2:
        blocks = window.reshape(rows.length, 2, columns.length, 2, 3).astype(np.uint16)
        window = ((blocks.sum(axis=(1, 3), dtype=np.uint16) + 2) >> 2).astype(np.uint8)
    return (window[:, ::-1] if columns.is_flipped else window).copy()


@functools.lru_cache(maxsize=1)
def _cv2_that_agrees() -> ModuleType | None:
    """Return OpenCV (extra ``fast``), or ``None`` where it is missing or its build for this machine rounds otherwise.

    Seen equal from 4.5.5 to 5.0.0 on x86-64; other processors have resize kernels of their own.
    """
    try:
        import cv2
    except ImportError:
        return None
    probe = np.random.default_rng(0).integers(0, 256, (97, 61, 3), dtype=np.uint8)
    for height, width in ((41, 83), (97, 29), (200, 30), (301, 224)):
        expected = _window_like_cv2(probe, _Window(height, 0, height), _Window(width, 0, width))
        if not np.array_equal(cv2.resize(probe, (width, height), interpolation=cv2.INTER_LINEAR), expected):
            return None
    module: ModuleType = cv2
    return module


def _check_resized_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DatasetError(
            f"would become {width}x{height} pixels when its short edge is resized; the limit is {MAX_PIXELS}. Crop it "
            "to a less extreme shape first."
        )
