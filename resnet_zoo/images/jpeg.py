"""JPEG files: the size in the header, and decoding no further down than needed. Segments: T.81, annex B."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_START, _END, _SCAN, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; the three left out are tables and an extension."""
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
"""Huffman-coded and decoded in one pass from top to bottom."""


def size_of_jpeg(data: Bytes) -> tuple[int, int] | None:
    """Return (height, width) of a grey or three-colour JPEG from its frame header, ``None`` for anything else."""
    for marker, body in _segments(data):
        if marker in _FRAMES and len(body) >= 6:
            return (*_size_in(body),) if body[5] in (1, 3) else None
    return None


def size_of_plain_jpeg(data: Bytes) -> tuple[int, int] | None:
    """Return (height, width) of a JPEG that `decode_top` takes, ``None`` for anything else.

    That is one of a single sequential scan with nothing missing at its end, and without an EXIF block, which could
    turn the image.
    """
    size = None
    num_components = 0
    if bytes(data[-2:]) != bytes((0xFF, _END)):
        return None
    for marker, body in _segments(data):
        if marker in _FRAMES:
            if marker not in _SEQUENTIAL_FRAMES or len(body) < 6 or body[5] not in (1, 3):
                return None
            size, num_components = _size_in(body), body[5]
        elif marker == _APP1 and bytes(body[:4]) == b"Exif":
            return None
        elif marker == _SCAN:
            return size if len(body) and body[0] == num_components and size and min(size) > 0 else None
    return None


def exif_of_jpeg(data: Bytes) -> bytes | None:
    """Return the EXIF block of a JPEG, wherever it stands among other APP1 segments (XMP is one); ``None`` without."""
    for marker, body in _segments(data):
        if marker == _APP1 and bytes(body[:6]) == b"Exif\0\0":
            return bytes(body)
    return None


def can_decode_top() -> bool:
    """Return whether simplejpeg (extra ``fast``) is installed, which `decode_top` needs."""
    return _simplejpeg() is not None


def decode_top(data: Bytes, num_rows: int) -> npt.NDArray[np.uint8]:
    """Decode at least the upper rows of a JPEG that has a `size_of_plain_jpeg`: (rows, W, 3) uint8 RGB.

    The height in the frame header is lowered, so that the decoder stops there. Most of the time goes into the Huffman
    codes, and those below are never read. The rows asked for are those of the whole image, bit for bit: chroma is
    smoothed across one row of blocks at most, and one more is decoded.

    Raises:
        ValueError: The file is damaged, or TurboJPEG does not know its sampling factors.
    """
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        raise ModuleNotFoundError("simplejpeg is not installed; pip install 'resnet-zoo[fast]'.", name="simplejpeg")
    shorter = data.copy()
    body = next(body for marker, body in _segments(shorter) if marker in _SEQUENTIAL_FRAMES)
    height, _ = _size_in(body)
    block_rows = 8 * max(factors & 15 for factors in body[7 : 6 + 3 * body[5] : 3])
    kept = min(height, (-(-num_rows // block_rows) + 1) * block_rows)
    body[1:3] = kept.to_bytes(2, "big")
    # Not strict: the rest of the scan is "extraneous data" now, which the other decoders would report on stderr.
    pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(shorter, "RGB", strict=False)
    return pixels


def _segments(data: Bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield the marker and body of each segment up to the first scan, whose header is the last."""
    view, position = data.data, 2
    if bytes(view[:2]) != bytes((0xFF, _START)):
        return
    while position + 4 <= len(view) and view[position] == 0xFF:
        marker = view[position + 1]
        end = position + 2 + int.from_bytes(view[position + 2 : position + 4], "big")
        yield marker, view[position + 4 : end]
        if marker == _SCAN:
            return
        position = end


def _size_in(body: memoryview) -> tuple[int, int]:
    return int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")


@functools.lru_cache(maxsize=1)
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    module: ModuleType = simplejpeg
    return module
