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

from resnet_zoo.base.files import expanded, is_reachable_file, sha256_of, write_atomically, writing_to
from resnet_zoo.base.strict_json import WrongValueError, decode, expect_sha256, parse
from resnet_zoo.base.unfinished import hold
from resnet_zoo.base.waiting import reported
from resnet_zoo.errors import CheckpointError, DownloadError

_LOCK_TIMEOUT_S = 3600.0
"""Longest wait for another process that downloads the same file; its lock ends with it, even if it is killed."""


def cache_path() -> Path:
    """Return the cache folder: ``$RESNET_ZOO_HOME``, else ``resnet_zoo`` in the platform's cache folder."""
    home = os.environ.get("RESNET_ZOO_HOME")
    if home:
        return expanded(home).absolute()
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "resnet_zoo"
    if sys.platform == "win32":
        return _folder_in("LOCALAPPDATA", _home() / "AppData" / "Local") / "resnet_zoo" / "Cache"
    return _folder_in("XDG_CACHE_HOME", _home() / ".cache") / "resnet_zoo"


def _home() -> Path:
    """Return the home folder.

    For a user without one, such as the bare number that a container runs as, a path that does not exist (Debian's name
    for no home): nothing is found there, and writing there is an error that says what to do.
    """
    home = expanded("~")
    return home if home.is_absolute() else Path(os.sep, "nonexistent")


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
    """Return where the transfer of a file is collected under its own name, its folder made and links taken away."""
    folder = cache_path() / "partial" / key
    with _naming_the_way_out():
        for place in (folder, folder / name):
            if place.is_symlink():  # what was written there would go where somebody else wants it
                place.unlink()
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
    with writing_to(source), source.open("r+b") as file:  # Windows flushes only what may be written
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
    except OSError:
        if os.path.lexists(_pin_path(source_name)):
            raise
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
    folder = cache_path() / "locks"
    timeout_s = _LOCK_TIMEOUT_S if timeout_s is None else timeout_s
    path = folder / f"{key}.lock"
    waiting = (
        f"Another process is fetching the same file (it holds {path}); waiting for at most {timeout_s / 60:.0f} "
        "minutes. If it hangs, end it."
    )
    refusal = DownloadError({key: f"another process has been fetching it for {timeout_s:.0f} s"})
    with contextlib.ExitStack() as held:
        with _naming_the_way_out(), reported(waiting):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold(path, refusal, patience_s=timeout_s))
        yield


@contextlib.contextmanager
def _naming_the_way_out() -> Iterator[None]:
    """Let an error about a cache that cannot be written say what to do."""
    try:
        yield
    except PermissionError as error:
        why = f"{error.strerror}. Let RESNET_ZOO_HOME name a folder that can be written"
        raise PermissionError(error.errno, why, str(cache_path())) from error


def is_intact(sha256: str) -> bool:
    """Tell whether an object is there with its own bytes."""
    path = object_path(sha256)
    return is_reachable_file(path) and sha256_of(path) == sha256


def _folder_in(variable: str, default: Path) -> Path:
    """Return the folder that an environment variable names; what is not an absolute path counts as unset."""
    folder = Path(os.environ.get(variable, ""))
    return folder if folder.is_absolute() else default


def _pin_path(source_name: str) -> Path:
    return cache_path() / "pins" / f"{source_name}.json"
