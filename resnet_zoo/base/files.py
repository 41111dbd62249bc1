"""Files: their sha256, where one may be written, and writing without ever leaving half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from resnet_zoo.errors import ArgumentError

_BLOCK_BYTES = 1 << 20
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read its bytes, unbuffered, and never wait: a pipe or a device might not end, or not even begin.

    Raises:
        OSError: The file cannot be opened, or is not a regular file.
        ValueError: The path contains a null byte.
    """
    descriptor = os.open(path, os.O_RDONLY | _AT_ONCE)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "Not a regular file (a pipe, a socket or a device)", os.fspath(path))


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: As `open_regular`.
    """
    with open_regular(path) as file:
        return file.read()


def is_folder(item: os.DirEntry[str]) -> bool:
    """Tell whether an item of a listing is a folder or a link to one; a link that leads to itself is not."""
    with contextlib.suppress(OSError):
        return item.is_dir()
    return False


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hex digits.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced by the home folder; left as it is for a user without one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # pathlib's own raises RuntimeError


def is_reachable_file(path: Path) -> bool:
    """Tell whether a file is there; one in a folder that may not be entered is not (pathlib raises PermissionError)."""
    return os.path.isfile(path)  # noqa: PTH113


def is_reachable_folder(path: Path) -> bool:
    """Tell whether a folder is there, as `is_reachable_file` does of a file."""
    return os.path.isdir(path)  # noqa: PTH112


def check_target(path: Path, suffixes: Collection[str] = (), *, overwrite: bool) -> None:
    """Refuse a path that cannot be written to, before any work is done.

    Args:
        path: The file to write.
        suffixes: Suffixes allowed; empty if the caller has checked them.
        overwrite: Whether a file that exists may be replaced.

    Raises:
        ArgumentError: It has another suffix, is a folder, or exists and may not be replaced.
        OSError: Its folder does not exist, or is not writable.
    """
    if suffixes and path.suffix not in suffixes:
        raise ArgumentError(f"{path}: expected a path that ends in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder; pass the path of the file to write.")
    if path.exists() and not overwrite:
        raise ArgumentError(f"{path} exists already. Choose another path, or allow it to be replaced (--force).")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Name the path in an error of writing that names none: a full disk is met by ``write``, which knows no path."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside the target, flush it to disk, and move it into place.

    Args:
        target: The file; an existing one is replaced.
        write: Writes the file at the path it is given.

    Raises:
        OSError: The file cannot be written; the target is unchanged and nothing is left behind.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("r+b") as file:  # Windows flushes only files that are open for writing
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
