"""Files by path or by address: ``s3://bucket/a.jpg`` and whatever else fsspec has a driver for (extra ``remote``)."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from resnet_zoo.base.files import open_regular
from resnet_zoo.errors import ArgumentError, DatasetError, ZooError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://")
_BLOCK_BYTES = 1 << 20
"""Read at once of a file at an address; what follows is there already for the next image of a shard."""

_last = threading.local()
"""In each thread, the file of the address that was read last, still open: a batch's images are neighbours in it."""


def is_address(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is an address: ``<protocol>://…``, chained ones such as ``simplecache::s3://…`` too."""
    return isinstance(path, str) and _ADDRESS.match(path) is not None


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a local file as `open_regular` does, or one at an address; it can seek.

    Raises:
        OSError, ValueError: As `open_regular`.
        ArgumentError: The address has no driver here.
        DatasetError: The address cannot be read.
    """
    if not is_address(path):
        with open_regular(path) as file:
            yield file
        return
    address = os.fspath(path)
    with _reaching(address), _open(address) as file:
        yield file


def read_bytes(address: str, *, offset: int = 0, size: int = -1, limit: int) -> bytearray:
    """Return the bytes of a file at an address: all, or ``size`` from ``offset`` on.

    Raises:
        ArgumentError: The address has no driver here.
        DatasetError: It cannot be read, or there are more bytes than the limit.
    """
    with _reaching(address):
        if size < 0:
            with _open(address) as file:
                known: int | None = getattr(file, "size", None)  # not of a stream
                data = file.read(limit + 1) if known is None or known <= limit else b""
            size = len(data) if known is None else known
        else:
            data = _read_part(address, offset, size) if size <= limit else b""
    if size > limit:
        raise DatasetError(f"{address} has more than {limit} bytes, the limit of an image.")
    return bytearray(data)


def _read_part(address: str, offset: int, size: int) -> bytes:
    if getattr(_last, "address", None) != address:
        _last.address, _last.file = None, None  # lets go of the file before
        _last.address, _last.file = address, _open(address)
    try:
        _last.file.seek(offset)
        data: bytes = _last.file.read(size)
    except BaseException:
        _last.address, _last.file = None, None  # in whatever state it is
        raise
    return data


def exists(address: str) -> bool:
    """Tell whether there is a file or folder at an address.

    Raises:
        ArgumentError: The address has no driver here.
        DatasetError: It cannot be reached.
    """
    with _reaching(address):
        files, place = _place(address)
        return bool(files.exists(place))


def state(address: str) -> str:
    """Return what changes when the file at an address does; nothing for one that cannot be reached."""
    with contextlib.suppress(DatasetError), _reaching(address):
        files, place = _place(address)
        return str(files.ukey(place))
    return ""


def listed(address: str) -> list[str] | None:
    """Return the files below a folder at an address, or those that fit a pattern (``s3://bucket/*.tar``), in order.

    The order is that of a local folder: by name, what is in a subfolder in its place.

    Returns:
        Addresses; ``None`` for the address of a file.

    Raises:
        ArgumentError: The address has no driver here.
        DatasetError: It cannot be reached.
    """
    with _reaching(address):
        files, place = _place(address)
        if any(sign in address for sign in "*[") and not files.exists(place):
            found = files.glob(place)
        elif files.isdir(place):
            found = files.find(place)
        else:
            return None
    prefix = address.rstrip("/").removesuffix(place.rstrip("/"))
    return [prefix + name for name in sorted(found, key=lambda name: str(name).split("/"))]


def _place(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ArgumentError(f"{address} needs fsspec, which is not installed: pip install fsspec.") from error
    try:
        files, place = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ArgumentError(f"{address} has no driver here: {_driver_of(address)}.") from error
    return files, place


def _driver_of(address: str) -> str:
    """Return what to do about an address without a driver."""
    from fsspec.registry import get_filesystem_class, known_implementations

    for protocol in address.partition("://")[0].split("::"):
        module = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
        if not module:
            return f"fsspec does not know {protocol}://; install the package that does, or fetch the files first"
        try:
            get_filesystem_class(protocol)
        except ImportError:
            return f"pip install {_PACKAGES.get(module, module).format(protocol)}"
    return "check the address"


_PACKAGES = {"fsspec": "'fsspec[{}]'", "pyarrow": "pyarrow", "huggingface_hub": "huggingface-hub"}
"""What to install for the module that a driver is in, where the name is another."""


def _open(address: str) -> Any:
    files, place = _place(address)
    return files.open(place, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")


@contextlib.contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Turn what drivers raise into an error that names the address."""
    try:
        yield
    except ZooError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{address} does not exist. Check the address.") from error
    except Exception as error:  # drivers raise what they like
        reason = " ".join((str(error).splitlines() or [""])[0].split()) or type(error).__name__
        raise DatasetError(
            f"{address} cannot be read: {reason[:200].rstrip('.')}. Check the address, the network and your "
            "permissions there."
        ) from error
