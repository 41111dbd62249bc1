"""Files of safetensors: read once, hashed while they are read, and parsed after that.

The format (https://github.com/huggingface/safetensors#format) is eight bytes, the little-endian length of the header;
the header, a JSON object that names each tensor's ``dtype``, ``shape`` and ``data_offsets``, and has texts under
``__metadata__``; and the data, without gaps or overlaps. The library's own reader either maps the file, whose tensors
change with it when somebody overwrites it and end the process when somebody cuts it, or wants all bytes beforehand, and
hashing them then takes as long again.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from resnet_zoo.base.files import open_regular
from resnet_zoo.base.strict_json import WrongValueError, decode, parse, short
from resnet_zoo.errors import CheckpointError

MAX_BYTES = 1 << 32
"""Largest file that is read into memory; the largest row's has 241 MB."""

_MAX_HEADER_BYTES = 100_000_000
"""As the library has it."""

_MAX_DIMENSIONS = 64
"""As torch has it; the product of a million numbers would take minutes."""

_BLOCK_BYTES = 1 << 22

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
"""The types of the format whose values are whole bytes."""


def looks_like_safetensors(path: Path) -> bool:
    """Tell whether a file begins as safetensors do: eight bytes of length, then a JSON object; no torch.save does.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return file.read(9)[8:] == b"{"


def read_hashed(path: Path) -> tuple[Tensor, str]:
    """Return a file's bytes (uint8, N), and their sha256: it is computed while the next bytes are read.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
        CheckpointError: It has more than `MAX_BYTES`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > MAX_BYTES:
            raise CheckpointError(path, f"it has {size_bytes} bytes; the limit is {MAX_BYTES}.")
        data = torch.empty(size_bytes, dtype=torch.uint8, device="cpu")
        buffer, have = memoryview(data.numpy()), 0  # type: ignore[arg-type]  # an array is a buffer
        with ThreadPoolExecutor(1) as pool:
            while number := cast("Any", file).readinto(buffer[have : have + _BLOCK_BYTES]):
                pool.submit(digest.update, buffer[have : have + number])
                have += number
    return data[:have], digest.hexdigest()


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file as they are stored, and the texts of its header.

    Raises:
        CheckpointError: It cannot be read, or is not such a file.
    """
    try:
        data, _ = read_hashed(path)
    except OSError as error:
        raise CheckpointError(path, f"it cannot be read ({error.strerror}).") from error
    return parse_safetensors(data, path)


def parse_safetensors(data: Tensor, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors that a file's bytes hold, and the texts of the header.

    The tensors have storages of their own, none of which can be resized, in the memory of the bytes, which live as long
    as one of them does.

    Args:
        data: The bytes (uint8, N).
        path: Where they are from, for errors.

    Raises:
        CheckpointError: They are not safetensors.
    """
    try:
        texts, items, values = _split(memoryview(data.numpy()))  # type: ignore[arg-type]  # an array is a buffer
        tensors, end = {}, 0
        for start, stop, dtype, shape, key in sorted(items, key=lambda item: item[:2]):
            size = math.prod(shape) * dtype.itemsize
            if start != end or stop != start + size:
                raise WrongValueError((key, "data_offsets"), f"expected {[end, end + size]}, got {[start, stop]}")
            tensors[key] = _tensor(values[start:stop], dtype, shape)
            end = stop
        if end != len(values):
            raise WrongValueError((), f"expected {end} bytes of tensors, got {len(values)}")
    except (ValueError, RuntimeError, WrongValueError) as error:
        raise CheckpointError(path, f"it is not valid safetensors ({error}). Fetch it again.") from error
    return tensors, texts


_Item = tuple[int, int, torch.dtype, list[int], str]
"""First byte, last byte and one, type, shape and key of a tensor."""


def _split(data: memoryview) -> tuple[dict[str, str], list[_Item], memoryview]:
    """Return the header's texts, what it says of each tensor, and the bytes of the tensors."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _MAX_HEADER_BYTES):
        raise WrongValueError((), f"a header of {length} bytes in a file of {len(data)}")
    header = decode(dict[str, Any], parse(bytes(data[8 : 8 + length]).decode()), ())
    texts = decode(dict[str, str], header.pop("__metadata__", None) or {}, ("__metadata__",))
    return texts, [_item(key, item) for key, item in header.items()], data[8 + length :]


def _item(key: str, item: Any) -> _Item:
    match item:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, stop], **rest} if (
            dtype in _DTYPES
            and not rest
            and len(shape) <= _MAX_DIMENSIONS
            and all(type(number) is int and number >= 0 for number in (start, stop, *shape))
        ):
            return start, stop, _DTYPES[dtype], shape, key
    fields = f"a dtype of {', '.join(_DTYPES)}, a shape of up to {_MAX_DIMENSIONS} numbers, and two data_offsets"
    raise WrongValueError((key,), f"expected {fields}, got {short(item)}")


def _tensor(values: memoryview, dtype: torch.dtype, shape: list[int]) -> Tensor:
    if not values:
        return torch.empty(shape, dtype=dtype, device="cpu")
    tensor = torch.frombuffer(values, dtype=torch.uint8)  # a storage of its own, of these bytes only
    if tensor.data_ptr() % dtype.itemsize:
        tensor = tensor.clone()
    if sys.byteorder == "big":
        tensor.untyped_storage().byteswap(dtype)  # type: ignore[no-untyped-call]
    return tensor.view(dtype).reshape(shape)
