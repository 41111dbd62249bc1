"""The cache: weights by their sha256, what is known of their sources, and transfers under way.

``objects/<sha256>.safetensors``  checked weights, written once, never changed
``pins/<source file>.json``       the full sha256 of an upstream checkpoint, and of what it was converted to
``partial/``                      transfers that can be continued
``locks/``                        one lock file per transfer
``quarantine/``                   files that turned out damaged

A warm cache needs no writing, so it may be read-only and shared.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from resnet_zoo.base.files import sha256_of, write_atomically
from resnet_zoo.base.strict_json import WrongValueError, decode, expect_sha256, parse
from resnet_zoo.errors import CheckpointError, DownloadError

_LOCK_TIMEOUT_S = 3600.0
"""Longest wait for another process that downloads the same file; its lock ends with it, even if it is killed."""


def cache_path() -> Path:
    """Return the cache folder: ``$RESNET_ZOO_HOME``, else ``resnet_zoo`` in the platform's cache folder."""
    home = os.environ.get("RESNET_ZOO_HOME")
    if home:
        return Path(home).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "resnet_zoo"
    if sys.platform == "win32":
        return _folder_in("LOCALAPPDATA", Path.home() / "AppData" / "Local") / "resnet_zoo" / "Cache"
    return _folder_in("XDG_CACHE_HOME", Path.home() / ".cache") / "resnet_zoo"


@dataclass(frozen=True)
class Pin:
    """What was learnt of an upstream checkpoint when it was first fetched.

    Attributes:
        url: Where it came from.
        sha256: Of the checkpoint, all 64 digits.
        size_bytes: Of the checkpoint.
        object_sha256: Of the safetensors file it was converted to.
        date: When, in ISO 8601, UTC.
    """

    url: str
    sha256: str
    size_bytes: int
    object_sha256: str
    date: str


def object_path(sha256: str) -> Path:
    """Return where weights with this sha256 are, or would be."""
    return cache_path() / "objects" / f"{sha256}.safetensors"


def part_path(key: str, name: str) -> Path:
    """Return where the transfer of a file is collected under its own name, its folder made."""
    folder = cache_path() / "partial" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def drop_part(part: Path) -> None:
    """Remove a transfer that is finished or worthless; a file that is not a transfer stays."""
    if part.parent.parent == cache_path() / "partial":
        shutil.rmtree(part.parent, ignore_errors=True)


def add_object(source: Path, sha256: str) -> Path:
    """Move a checked file into the cache under its sha256 and return its place."""
    target = object_path(sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())
    source.replace(target)
    drop_part(source)
    return target


def quarantine(sha256: str) -> Path | None:
    """Put a damaged object aside and return where it is; ``None`` if it is gone or was repaired meanwhile.

    Judged again under a lock, because several processes may meet the same damage.

    Raises:
        OSError: The cache cannot be written.
    """
    path = object_path(sha256)
    target = cache_path() / "quarantine" / f"{path.name}.{time.time_ns()}"
    with lock(f"object-{sha256[:16]}"):
        if not path.exists() or is_intact(sha256):
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    return target


def read_pin(source_name: str) -> Pin | None:
    """Return what is known of an upstream checkpoint, ``None`` if it was never fetched."""
    try:
        pin: Pin = decode(Pin, parse(_pin_path(source_name).read_text(encoding="utf-8")), ())
        for digest in (pin.sha256, pin.object_sha256):
            expect_sha256(digest, ("sha256",))
    except FileNotFoundError:
        return None
    except (ValueError, WrongValueError) as error:
        path = _pin_path(source_name)
        raise CheckpointError(
            path, f"it is not a record of a download ({error}). Remove it to fetch it again."
        ) from error
    return pin


def write_pin(source_name: str, pin: Pin) -> None:
    """Remember an upstream checkpoint."""
    path = _pin_path(source_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: part.write_text(json.dumps(asdict(pin), indent=2) + "\n", encoding="utf-8"))


@contextlib.contextmanager
def lock(key: str, *, timeout_s: float | None = None) -> Iterator[None]:
    """Hold the lock of a transfer; the operating system frees it if this process is killed.

    Lock files stay: whoever removed one could let two processes in.

    Raises:
        DownloadError: Another process held it all the time.
        OSError: The cache cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = cache_path() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    timeout_s = _LOCK_TIMEOUT_S if timeout_s is None else timeout_s
    held = FileLock(folder / f"{key}.lock")
    try:
        held.acquire(timeout=timeout_s)
    except Timeout as error:
        raise DownloadError({key: f"another process has been fetching it for {timeout_s:.0f} s"}) from error
    try:
        yield
    finally:
        held.release()


def is_intact(sha256: str) -> bool:
    """Tell whether an object is there with its own bytes."""
    path = object_path(sha256)
    return path.is_file() and sha256_of(path) == sha256


def _folder_in(variable: str, default: Path) -> Path:
    """Return the folder that an environment variable names; what is not an absolute path counts as unset."""
    folder = Path(os.environ.get(variable, ""))
    return folder if folder.is_absolute() else default


def _pin_path(source_name: str) -> Path:
    return cache_path() / "pins" / f"{source_name}.json"
