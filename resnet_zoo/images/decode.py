"""From the bytes of an image to (H, W, 3) uint8 RGB, as OpenCV's ``IMREAD_COLOR`` reads them."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import ImageReadMode  # also registers torch.ops.image

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.jpeg import size_of_jpeg

Pixels = npt.NDArray[np.uint8]
FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview

MAX_PIXELS = 178_956_970
"""Largest image that is decoded or resized to: twice Pillow's own warning limit, against decompression bombs."""

_EXIF_ORIENTATION = 0x0112


def decode(image: FileSource | Image.Image) -> Pixels:
    """Decode an image to (H, W, 3) uint8 RGB as OpenCV's ``IMREAD_COLOR`` does: EXIF orientation applied, grey
    replicated, alpha dropped, the high byte of 16-bit samples.

    Raises:
        DatasetError: The image is missing, unreadable, too large, in a mode that has no 8-bit RGB form, or not of a
            type that can be an image.
    """
    title = title_of(image)
    if not isinstance(image, Image.Image):
        return decode_bytes(_read_bytes(image), title)
    with _naming(title):
        return _upright(_decode_with_pillow(image, title), image)


def decode_bytes(data: Pixels, title: str) -> Pixels:
    """Decode the bytes of an image file, (n,) uint8, as `decode` does.

    Raises:
        DatasetError: The image is unreadable, too large, or in a mode that has no 8-bit RGB form; the title names it.
    """
    with _naming(title):
        return _decode_bytes(data, title)


@contextlib.contextmanager
def _naming(title: str) -> Iterator[None]:
    """Turn what decoders raise into an error that names the image."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise DatasetError(f"{title} is not an image of any known format.") from error
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{title} cannot be decoded as an image: {_reason(error)}.") from error


def read_file(path: str | os.PathLike[str], *, offset: int = 0, size: int = -1) -> Pixels:
    """Return the bytes of a file, (n,) uint8: all, or ``size`` from ``offset`` on.

    Raises:
        DatasetError: The file is missing, unreadable, or holds nothing there.
    """
    try:
        data = np.fromfile(path, np.uint8, size, offset=offset)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{title_of(path)} cannot be read: {getattr(error, 'strerror', error)}.") from error
    if not len(data):
        raise DatasetError(f"{title_of(path)} is empty; expected an image file.")
    return data


def _read_bytes(image: FileSource) -> Pixels:
    if isinstance(image, (str, os.PathLike)):
        return read_file(image)
    if not isinstance(image, (bytes, bytearray, memoryview)):
        raise DatasetError(f"Expected an image: a path, bytes, a PIL image or an array; got {type(image).__name__}.")
    if not len(image):
        raise DatasetError(f"{title_of(image)} is empty; expected an image file.")
    return np.frombuffer(bytearray(image), np.uint8)


def _decode_bytes(data: Pixels, title: str) -> Pixels:
    size = size_of_jpeg(data)
    if size is not None and _DECODE_JPEG is not None:
        check_size(*size, title)
        # The operator applies the EXIF orientation itself.
        decoded: Pixels = _DECODE_JPEG(torch.from_numpy(data), ImageReadMode.RGB.value, True).permute(1, 2, 0).numpy()
        return decoded if decoded.flags.c_contiguous else np.ascontiguousarray(decoded)
    # What Pillow warns of goes to the caller: filters belong to the whole process, and images are read in threads.
    opened = Image.open(io.BytesIO(data.data))
    check_size(opened.height, opened.width, title)
    return _upright(_decode_with_pillow(opened, title), opened)


def _jpeg_operator() -> Callable[..., torch.Tensor] | None:
    """Return torchvision's JPEG decoder: Pillow's bits in three quarters of its time.

    The operator itself, because the function around it is deprecated since torchvision 0.29; ``None`` once it is gone.
    """
    try:
        operator: Callable[..., torch.Tensor] = torch.ops.image.decode_jpeg
    except AttributeError:
        return None
    return operator


_DECODE_JPEG = _jpeg_operator()


def check_size(height: int, width: int, title: str) -> None:
    """Refuse an image that would take too much memory.

    Raises:
        DatasetError: It has more than `MAX_PIXELS`.
    """
    if height * width > MAX_PIXELS:
        raise DatasetError(f"{title} has {width}x{height} pixels; the limit is {MAX_PIXELS}.")


def _decode_with_pillow(image: Image.Image, title: str) -> Pixels:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips it at 255
        high_byte = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high_byte[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DatasetError(f"{title} holds floating-point samples; expected 8 or 16 bits. Convert it first.")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))  # a copy: torch requires writable memory


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
    orientation = _orientation(image) if "exif" in image.info else None
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)) if orientation in _UPRIGHT else pixels


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001  # Pillow raises what it likes for a damaged block; OpenCV ignores it too
        return None


def title_of(image: object) -> str:
    """Return the name of an image in errors: its path, or "The image"."""
    if isinstance(image, (str, os.PathLike)):
        return str(Path(image))
    return getattr(image, "filename", "") or "The image"


def _reason(error: Exception) -> str:
    """Return the last clause of the first line: torchvision puts its function and source file before it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.rsplit(", ", 1)[-1].rstrip(".").lower()
