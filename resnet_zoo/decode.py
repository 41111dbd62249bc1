"""From the bytes of an image to (H, W, 3) uint8 RGB, as OpenCV's ``IMREAD_COLOR`` reads them."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg

from resnet_zoo.errors import DatasetError

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 178_956_970
"""Largest image that is decoded or resized to: twice Pillow's own warning limit, against decompression bombs."""

_EXIF_ORIENTATION = 0x0112


def decode(image: str | os.PathLike[str] | bytes | Image.Image) -> Pixels:
    """Decode an image to (H, W, 3) uint8 RGB as OpenCV's ``IMREAD_COLOR`` does: EXIF orientation applied, grey
    replicated, alpha dropped, the high byte of 16-bit samples.

    Raises:
        DatasetError: The image is missing, unreadable, too large, or in a mode that has no 8-bit RGB form.
    """
    if isinstance(image, Image.Image):
        return _upright(_decode_with_pillow(image, title_of(image)), image)
    data = _read_bytes(image)
    title = title_of(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is the rule
            opened = Image.open(io.BytesIO(data.data))
        if opened.width * opened.height > MAX_PIXELS:
            raise DatasetError(f"{title} has {opened.width}x{opened.height} pixels; the limit is {MAX_PIXELS}.")
        if data[:2].tobytes() == b"\xff\xd8" and opened.mode in ("RGB", "L"):
            # The same library and the same bits as Pillow, without Pillow's padding to four bytes.
            decoded = decode_jpeg(torch.from_numpy(data), mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
        else:
            decoded = _decode_with_pillow(opened, title)
        return _upright(decoded, opened)
    except UnidentifiedImageError as error:
        raise DatasetError(f"{title} is not an image of any known format.") from error
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{title} cannot be decoded as an image: {_reason(error)}.") from error


def _read_bytes(image: str | os.PathLike[str] | bytes) -> Pixels:
    if isinstance(image, bytes):
        data = np.frombuffer(bytearray(image), np.uint8)
    else:
        try:
            data = np.fromfile(image, np.uint8)
        except OSError as error:
            raise DatasetError(f"{title_of(image)} cannot be read: {error.strerror or error}.") from error
    if not len(data):
        raise DatasetError(f"{title_of(image)} is empty; expected an image file.")
    return data


def _decode_with_pillow(image: Image.Image, title: str) -> Pixels:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips it at 255
        high_byte = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high_byte[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DatasetError(f"{title} holds floating-point samples; expected 8 or 16 bits. Convert it first.")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


_UPRIGHT = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}
"""What undoes each EXIF orientation; 1, and values outside the standard, mean upright."""


def _upright(pixels: Pixels, image: Image.Image) -> Pixels:
    orientation = image.getexif().get(_EXIF_ORIENTATION) if "exif" in image.info else None
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)) if orientation in _UPRIGHT else pixels


def title_of(image: object) -> str:
    """Return what an error calls an image: its path, or "The image"."""
    if isinstance(image, (str, os.PathLike)):
        return str(Path(image))
    return getattr(image, "filename", "") or "The image"


def _reason(error: Exception) -> str:
    """Return the last clause of the first line: torchvision puts its function and source file before it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.rsplit(", ", 1)[-1].rstrip(".").lower()
