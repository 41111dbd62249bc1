"""Writing a site: beside its place first, then moved into it; files of others are never removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from resnet_zoo.errors import ArgumentError

MARKER_NAME = ".resnet-zoo-site"
"""Lists the files of the site it lies in, one a line."""


def write_site(target: Path, files: Mapping[str, bytes], *, force: bool = False) -> None:
    """Write the files of a site into a folder that is empty, new, or holds a former site and nothing else.

    Args:
        target: The folder.
        files: Content by address.
        force: Write also beside other files. They stay, unless they carry the name of a page.

    Raises:
        ArgumentError: The folder holds other files, or the place is not a folder.
        OSError: It cannot be written; existing files are unchanged.
    """
    check_target(target, force=force)
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        part.chmod(0o777 & ~_umask())
        _write_files(part, {**files, MARKER_NAME: _marker(files)})
        if _others(target) or _is_above(target, Path.cwd()):
            _move_beside_others(part, target)
        else:
            _swap(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_target(target: Path, *, force: bool = False) -> None:
    """Refuse a place where a site may not be written.

    Raises:
        ArgumentError: The folder holds other files, or the place is not a folder.
    """
    if target.exists() and not target.is_dir():
        raise ArgumentError(f"{target} is a file. Pass a folder that is empty or not there yet.")
    others = _others(target)
    if others and not force:
        raise ArgumentError(
            f"{target} holds {len(others)} files that are not of a site, {sorted(others)[0]} among them. Pass an empty "
            "folder, or --force to write beside them."
        )


def _others(target: Path) -> set[str]:
    """Return the files in a folder that no former site there has listed."""
    return _files_in(target) - _former(target)


def _files_in(target: Path) -> set[str]:
    if not target.is_dir():
        return set()
    return {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_symlink() or not path.is_dir()}


def _former(target: Path) -> set[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return {MARKER_NAME, *(target / MARKER_NAME).read_text(encoding="utf-8").splitlines()}
    return set()


def _marker(files: Iterable[str]) -> bytes:
    return "".join(f"{address}\n" for address in sorted(files)).encode()


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for address, content in files.items():
        path = folder / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _is_above(target: Path, folder: Path) -> bool:
    """Tell whether a folder lies in the target or is it: a shell standing there would be left in a removed folder."""
    return target == folder or target in folder.parents


def _swap(part: Path, target: Path) -> None:
    """Put a folder in the place of another; if that fails, the other is back."""
    old = part.with_suffix(".old")
    if target.exists():
        target.replace(old)
    try:
        part.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _move_beside_others(part: Path, target: Path) -> None:
    """Move file by file, each in one step, and remove what only the former site had."""
    stale = _former(target) & _files_in(target)
    new = _files_in(part)
    for address in sorted(new):
        (target / address).parent.mkdir(parents=True, exist_ok=True)
        (part / address).replace(target / address)
    _remove(target, stale - new)


def _remove(target: Path, addresses: Collection[str]) -> None:
    for address in addresses:
        (target / address).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
