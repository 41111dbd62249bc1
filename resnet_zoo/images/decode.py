"""From the bytes of an image to (H, W, 3) uint8 RGB, as OpenCV's ``IMREAD_COLOR`` reads them."""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from resnet_zoo.base.files import open_regular
from resnet_zoo.errors import DatasetError
from resnet_zoo.images.addresses import is_address, read_bytes
from resnet_zoo.images.jpeg import exif_of_jpeg, size_of_jpeg

Pixels = npt.NDArray[np.uint8]


class Member:
    """An image inside a shard.

    Attributes:
        filename: What it is called: the shard, and the image's name or place in it.
        shard: The path or address of the shard.
    """

    filename: str
    shard: str

    def read(self) -> Pixels:
        """Return the bytes of the image file, (n,) uint8.

        Raises:
            DatasetError: They cannot be read.
        """
        raise NotImplementedError


FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Member

MAX_PIXELS = 178_956_970
"""Largest image that is decoded or resized to: twice Pillow's own warning limit, against decompression bombs."""

MAX_FILE_BYTES = 8 * MAX_PIXELS
"""Largest image file that is read: what the largest image takes as uncompressed 16-bit RGBA."""

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of the formats that are decoded, AVIF where Pillow has it. The content decides, not the file's name.
Pillow knows more, and hands some of them to other programs: PostScript goes to Ghostscript."""

_MODE_RGB = 3
"""``torchvision.io.ImageReadMode.RGB``."""

_EXIF_START = b"Exif\0\0"
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


@functools.cache
def _formats_here() -> tuple[str, ...]:
    """Return those of `FORMATS` that Pillow has; it loads its plugins for that, which a JPEG alone does not need."""
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


@contextlib.contextmanager
def _naming(title: str) -> Iterator[None]:
    """Turn what decoders raise into an error that names the image."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise DatasetError(f"{title} is not an image of any known format ({', '.join(_formats_here())}).") from error
    except DatasetError:
        raise
    except Exception as error:  # decoders raise what they like for damaged files
        raise DatasetError(f"{title} cannot be decoded as an image: {_reason(error)}.") from error


def read_file(path: str | os.PathLike[str], *, offset: int = 0, size: int = -1) -> Pixels:
    """Return the bytes of a file, (n,) uint8: all, or ``size`` from ``offset`` on.

    Raises:
        DatasetError: The file is missing, unreadable, not a regular file, too large, or holds nothing there.
        ArgumentError: It is an address, and has no driver here.
    """
    if is_address(path):
        data = np.frombuffer(read_bytes(os.fspath(path), offset=offset, size=size, limit=MAX_FILE_BYTES), np.uint8)
        return _some_bytes(data, path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size - offset if size < 0 else size
            if size > MAX_FILE_BYTES:
                raise DatasetError(f"{title_of(path)} has {size} bytes; the limit of an image is {MAX_FILE_BYTES}.")
            data = np.fromfile(file, np.uint8, size, offset=offset)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{title_of(path)} cannot be read: {getattr(error, 'strerror', error)}.") from error
    return _some_bytes(data, path)


def _some_bytes(data: Pixels, source: object) -> Pixels:
    if not len(data):
        raise DatasetError(f"{title_of(source)} is empty; expected an image file.")
    return data


def _read_bytes(image: FileSource) -> Pixels:
    if isinstance(image, (str, os.PathLike)):
        return read_file(image)
    if isinstance(image, Member):
        return image.read()
    if not isinstance(image, (bytes, bytearray, memoryview)):
        raise DatasetError(
            f"Expected an image: a path, bytes, a PIL image, an array or a tensor; got {type(image).__name__}."
        )
    return _some_bytes(np.frombuffer(bytearray(image), np.uint8), image)


def _decode_bytes(data: Pixels, title: str) -> Pixels:
    size = size_of_jpeg(data)
    if size is not None and (decode_jpeg := _jpeg_operator()):
        check_size(*size, title)
        # Not turned by the operator, which finds the orientation in the first APP1 segment only: XMP may come first.
        decoded: Pixels = decode_jpeg(torch.from_numpy(data), _MODE_RGB, False).permute(1, 2, 0).numpy()
        return np.ascontiguousarray(_turned(decoded, exif_of_jpeg(data)))
    # What Pillow warns of goes to the caller: filters belong to the whole process, and images are read in threads.
    opened = Image.open(io.BytesIO(data.data), formats=_formats_here())
    check_size(opened.height, opened.width, title)
    return _upright(_decode_with_pillow(opened, title), opened)


@functools.cache
def _jpeg_operator() -> Callable[..., torch.Tensor] | None:
    """Return torchvision's JPEG decoder: Pillow's bits in three quarters of its time; ``None`` where it is gone.

    The operator itself, from its library: to import torchvision takes a second, and the function around the operator
    is deprecated since torchvision 0.29.
    """
    torchvision = importlib.util.find_spec("torchvision")
    files = Path(torchvision.origin).parent.glob("image*") if torchvision and torchvision.origin else ()
    for path in files:
        if path.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
            with contextlib.suppress(OSError):  # made for another torch
                torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    return getattr(torch.ops.image, "decode_jpeg", None)


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


_UPRIGHT: dict[int | None, Callable[[Pixels], Pixels]] = {
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
    return np.ascontiguousarray(_turned(pixels, image.info.get("exif")))


def _turned(pixels: Pixels, exif: object) -> Pixels:
    """Return pixels (H, W, 3) as the orientation in an EXIF block says, if there is one."""
    turn = _UPRIGHT.get(_orientation(exif)) if isinstance(exif, bytes) else None
    return pixels if turn is None else turn(pixels)


def _orientation(exif: bytes) -> int | None:
    """Return the orientation in an EXIF block; ``None`` if it is not there, or the block is damaged.

    A block is a TIFF file, in whose first directory it stands (Exif 2.32, 4.6.4). As OpenCV, and unlike Pillow, this
    looks at nothing else: neither at XMP nor at the type of the value.
    """
    while exif.startswith(_EXIF_START):
        exif = exif[len(_EXIF_START) :]
    order: Literal["little", "big"] = "little" if exif.startswith(b"II") else "big"
    start = int.from_bytes(exif[4:8], order)
    if not exif.startswith((b"II*\0", b"MM\0*")):
        return None
    num_fields = int.from_bytes(exif[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * num_fields, len(exif) - 11), 12):
        if int.from_bytes(exif[at : at + 2], order) == _EXIF_ORIENTATION:
            return int.from_bytes(exif[at + 8 : at + 10], order)
    return None


def title_of(image: object) -> str:
    """Return the name of an image in errors: its path, or "The image"."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image) if is_address(image) else str(Path(image))
    return getattr(image, "filename", "") or "The image"


def _reason(error: Exception) -> str:
    """Return the last clause of the first line: torchvision puts its function and source file before it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.rsplit(", ", 1)[-1].rstrip(".").lower()
