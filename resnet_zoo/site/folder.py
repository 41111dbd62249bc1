"""Writing a site: whole files are moved into its folder, and only files of a former site are ever removed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from resnet_zoo.base.files import writing_to
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
        OSError: It cannot be written; every page that was there is still whole.
    """
    check_target(target, force=force)
    target.mkdir(parents=True, exist_ok=True)
    stale = _former(target) & _files_in(target)
    with tempfile.TemporaryDirectory(prefix=".site-", dir=target) as part:
        _write_files(Path(part), {**files, MARKER_NAME: _marker(files)})
        new = _files_in(Path(part))
        for address in sorted(new):
            (target / address).parent.mkdir(parents=True, exist_ok=True)
            (Path(part) / address).replace(target / address)
    for address in stale - new:
        (target / address).unlink(missing_ok=True)


def check_target(target: Path, *, force: bool = False) -> None:
    """Refuse a place where a site may not be written.

    Raises:
        ArgumentError: The folder holds other files, or the place is not a folder.
    """
    if target.exists() and not target.is_dir():
        raise ArgumentError(f"{target} is a file. Pass a folder that is empty or does not exist yet.")
    others = _others(target)
    if others and not force:
        raise ArgumentError(
            f"{target} holds {len(others)} files that do not belong to a site, {sorted(others)[0]} among them. Pass "
            "an empty folder, or --force to write beside them."
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
        with writing_to(path):
            path.write_bytes(content)
