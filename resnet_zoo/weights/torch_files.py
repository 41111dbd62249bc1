"""Files of ``torch.save``: zip archives and the older plain pickles, of pickle protocols 1 to 5.

The pickle is read as data (`resnet_zoo.weights.pickles`), then the tensors that are wanted; torch sees only their
bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from resnet_zoo.errors import CheckpointError, UnsafeCheckpointError, ZooError
from resnet_zoo.weights.pickles import Storage, TensorPlan, read_pickle

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
"""What a file without a zip archive begins with (torch.serialization: MAGIC_NUMBER, PROTOCOL_VERSION)."""


class TorchFile:
    """An open file of ``torch.save``.

    Attributes:
        content: What was saved, as `read_pickle` returns it.
    """

    content: Any

    def __init__(self) -> None:
        self._bytes: dict[str, Tensor] = {}

    def tensor(self, plan: TensorPlan) -> Tensor:
        """Read a tensor; those of one storage share their memory, as they did when they were saved."""
        storage = plan.storage
        if storage.key not in self._bytes:
            self._bytes[storage.key] = self._read(storage)
        values = self._bytes[storage.key].view(storage.dtype)
        if storage.offset + storage.size > len(values):
            raise ValueError("a storage that claims more values than the file holds for it")
        return values.as_strided(plan.shape, plan.strides, storage.offset + plan.offset)

    def _read(self, storage: Storage) -> Tensor:
        raise NotImplementedError


class _Archive(TorchFile):
    """A zip: ``NAME/data.pkl``, and the bytes of each storage as ``NAME/data/KEY``."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__()
        self.zip = _checked_archive(file, path)
        (member,) = (name for name in self.zip.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        self.folder = member.removesuffix("data.pkl")
        order = f"{self.folder}byteorder"
        self.is_swapped = order in self.zip.NameToInfo and self.zip.read(order) != sys.byteorder.encode()
        self.content = read_pickle(io.BytesIO(self.zip.read(member)), path)

    def _read(self, storage: Storage) -> Tensor:
        member = self.zip.getinfo(f"{self.folder}data/{storage.key}")
        with self.zip.open(member) as file:
            data = _filled(file, member.file_size)
        if self.is_swapped:
            data.untyped_storage().byteswap(storage.dtype)  # type: ignore[no-untyped-call]
        return data


class _Plain(TorchFile):
    """Pickles (a magic number, a version, notes, what was saved, the storages' keys), then the storages in turn."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__()
        self.file, dtypes = file, dict[str, torch.dtype]()
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        pickles = cast("IO[bytes]", _Bounded(file, size))
        if read_pickle(pickles, path) != _MAGIC or read_pickle(pickles, path) != _VERSION:
            raise ValueError("it does not begin as files of torch.save do")
        _, self.content, keys = (read_pickle(pickles, path, dtypes) for _ in range(3))
        if not all(isinstance(key, str) for key in keys):  # nothing nested is ever hashed: that could end the process
            raise TypeError("keys of storages that are not texts")
        self.places: dict[str, tuple[int, int]] = {}
        for key in keys:
            size_bytes = int.from_bytes(file.read(8), "little") * dtypes[key].itemsize
            self.places[key] = (file.tell(), size_bytes)
            if file.seek(size_bytes, os.SEEK_CUR) > size:
                raise ValueError("it ends within a tensor")

    def _read(self, storage: Storage) -> Tensor:
        start, size_bytes = self.places[storage.key]
        self.file.seek(start)
        return _filled(self.file, size_bytes)


class _Bounded:
    """A file of which no more is asked for than it has: a pickle may claim a text of any length."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size
        self.tell, self.readline = file.tell, file.readline

    def read(self, number: int) -> bytes:
        return self.file.read(min(number, self.size))


def _filled(file: IO[bytes], size_bytes: int) -> Tensor:
    """Return bytes of a file in memory that torch allocated, which aligns it."""
    data = torch.empty(size_bytes, dtype=torch.uint8, device="cpu")
    rest = memoryview(cast("bytearray", data.numpy()))
    while rest:
        number = cast("io.BufferedIOBase", file).readinto(rest)
        if not number:
            raise EOFError
        rest = rest[number:]
    return data


@contextlib.contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open a file of ``torch.save``, and turn whatever its bytes lead to within the ``with`` block into an error.

    Raises:
        UnsafeCheckpointError: It asks to run code.
        CheckpointError: It is no such file, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            is_archive = file.read(4) == b"PK\3\4"
            yield _Archive(file, path) if is_archive else _Plain(file, path)
    except ZooError:
        raise
    except Exception as error:  # hostile bytes can raise anything; whatever it is, the file was refused
        why = "it is neither a PyTorch checkpoint nor safetensors, or it is damaged. Fetch it again."
        raise CheckpointError(path, why) from error


def _checked_archive(file: IO[bytes], path: Path) -> zipfile.ZipFile:
    """Refuse a zip that is a program, or that would unpack to more than its own size (torch stores uncompressed)."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(path, f"it is a damaged zip archive ({error}). Fetch it again.") from error
    members = archive.infolist()
    strays = [name for name in (member.filename for member in members) if ".." in name.split("/") or name[:1] == "/"]
    if strays:
        raise UnsafeCheckpointError(path, strays[0])
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise UnsafeCheckpointError(path, "TorchScript code")
    if sum(member.file_size for member in members) > file.seek(0, os.SEEK_END):
        raise CheckpointError(path, "it unpacks to more than its own size, which torch.save never does. Do not use it.")
    return archive
