"""What the cache holds, by row; checking, removing and exporting it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from resnet_zoo.cache import cache_path, lock
from resnet_zoo.download import LocalWeights, cached_weights, is_here, shipped_weights
from resnet_zoo.errors import ArgumentError, CheckpointError, DownloadError, IntegrityError
from resnet_zoo.files import sha256_of, write_atomically
from resnet_zoo.manifest import current_manifest
from resnet_zoo.records import Entry, RunOrigin, UpstreamOrigin, used_with


@dataclass(frozen=True)
class CachedFile:
    """One file of weights in the cache.

    Attributes:
        sha256: What its bytes must hash to; its name.
        size_bytes: Its size.
        modified: When it was written, ISO 8601, UTC.
        weights: The weight sets it belongs to, ``row/tag``; empty if the manifest knows none.
        source: Where it came from; empty if unknown.
        pin: ``sha256``, or ``32-bit pin``; see ``download``.
    """

    sha256: str
    size_bytes: int
    modified: str
    weights: tuple[str, ...]
    source: str
    pin: str


def list_cache() -> list[CachedFile]:
    """Return the files of the cache, those of the manifest first, in table order."""
    owners: dict[str, list[tuple[str, LocalWeights]]] = {}
    for entry, tag, local in cached_sets():
        owners.setdefault(local.sha256, []).append((f"{entry.name}/{tag}", local))
    folder = cache_path() / "objects"
    paths = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    rank = {sha256: position for position, sha256 in enumerate(owners)}
    files = [_describe(path, owners.get(path.stem, [])) for path in paths]
    return sorted(files, key=lambda file: (rank.get(file.sha256, len(rank)), file.sha256))


def cached_sets() -> Iterator[tuple[Entry, str, LocalWeights]]:
    """Yield every weight set of the manifest that is in the cache; one whose record is damaged counts as absent."""
    for entry in current_manifest().models:
        for tag in entry.weights:
            with contextlib.suppress(CheckpointError):
                local = cached_weights(entry, tag)
                if local is not None:
                    yield entry, tag, local


@dataclass(frozen=True)
class WeightFacts:
    """A weight set in a line.

    Attributes:
        model: The row.
        weights: The tag.
        is_default: Whether ``pretrained=True`` stands for it.
        top1: In percent: as its publisher printed it, or as measured here for weights trained here.
        size: Height and width it is usually tested at, in pixels.
        pin_bits: Bits of its sha256 that are known before the first byte is fetched.
        size_bytes: Of its file, where it is known.
        license: Of the weights.
        source: The address or path of its file.
        is_here: Whether it can be used without a download.
    """

    model: str
    weights: str
    is_default: bool
    top1: str
    size: int
    pin_bits: int
    size_bytes: int | None
    license: str
    source: str
    is_here: bool


def weight_facts(entries: Iterable[Entry]) -> list[WeightFacts]:
    """Return the weight sets of rows, in their order."""
    return [_facts_of(entry, tag) for entry in entries for tag in entry.weights]


def _facts_of(entry: Entry, tag: str) -> WeightFacts:
    found, used = entry.weights[tag], used_with(entry, tag)
    top1, source, digits = used.published.top1, "", 64
    if isinstance(found.origin, RunOrigin):
        top1 = f"{found.measured.top1:.2f}" if found.measured else "-"
    if found.file is not None:
        source = found.file.path
    elif isinstance(found.origin, UpstreamOrigin):
        source, digits = found.origin.url, len(found.origin.sha256_prefix)
    shipped = shipped_weights(entry, tag)
    return WeightFacts(
        model=entry.name,
        weights=tag,
        is_default=tag == entry.default_weights,
        top1=top1,
        size=used.input_size[-1],
        pin_bits=4 * digits,
        size_bytes=found.file.size_bytes if found.file else None,
        license=found.license,
        source=str(shipped.path) if shipped else source,
        is_here=is_here(entry, tag),
    )


def damaged_files(files: Iterable[CachedFile]) -> list[CachedFile]:
    """Return the files whose bytes do not have their sha256."""
    return [file for file in files if sha256_of(_path_of(file)) != file.sha256]


def remove_files(files: Iterable[CachedFile]) -> int:
    """Remove files from the cache and return how many bytes that freed."""
    freed = 0
    for file in files:
        _path_of(file).unlink(missing_ok=True)
        freed += file.size_bytes
    return freed


def select_files(names: Iterable[str]) -> list[CachedFile]:
    """Return the cached files of rows (or of ``row/tag``).

    Raises:
        UnknownModelError: No row is called so.
        ArgumentError: Nothing of a row is in the cache.
    """
    files = list_cache()
    chosen = []
    for name in names:
        row, _, tag = name.partition("/")
        row = current_manifest().find(row).name
        found = [file for file in files if any(_belongs(weights, row, tag) for weights in file.weights)]
        if not found:
            raise ArgumentError(f"Nothing of {name} is in the cache; `resnet-zoo cache ls` shows what is.")
        chosen += found
    return list(dict.fromkeys(chosen))


def _belongs(weights: str, row: str, tag: str) -> bool:
    """Tell whether ``row/tag`` is of this row, and of this tag where one is given."""
    return weights.startswith(f"{row}/") and tag in ("", weights.removeprefix(f"{row}/"))


def prune() -> int:
    """Remove unfinished transfers, files put aside, and weights the manifest does not know; return the bytes freed.

    A transfer that another process is making stays.
    """
    freed = remove_files(file for file in list_cache() if not file.weights)
    freed += _remove_tree(cache_path() / "quarantine")
    for folder in (cache_path() / "partial").glob("*"):
        with contextlib.suppress(DownloadError), lock(folder.name, timeout_s=0):
            freed += _remove_tree(folder)
    return freed


def _remove_tree(folder: Path) -> int:
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return freed


def export_mirror(target: Path) -> tuple[list[Path], list[str]]:
    """Copy the cache's published files into a folder that works as a mirror (``RESNET_ZOO_MIRROR``).

    Returns:
        The files written, and the weight sets left out because the manifest has no file of theirs yet.

    Raises:
        IntegrityError: A file of the cache is damaged.
        ArgumentError: Two different files have the same name.
        OSError: The folder cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    left_out: list[str] = []
    taken: dict[Path, str] = {}
    for entry, tag, local in cached_sets():
        file = entry.weights[tag].file
        if file is None:
            left_out.append(f"{entry.name}/{tag}")
            continue
        path = target / file.name
        if taken.setdefault(path, local.sha256) != local.sha256:
            raise ArgumentError(
                f"Two weight sets have files called {path.name}; a mirror is flat and can hold only one."
            )
        write_atomically(path, partial(_copy_checked, local))
        written.append(path)
    return written, left_out


def _copy_checked(local: LocalWeights, target: Path) -> None:
    shutil.copyfile(local.path, target)
    actual = sha256_of(target)
    if actual != local.sha256:
        raise IntegrityError(local.path, local.sha256, actual)


def _describe(path: Path, owners: list[tuple[str, LocalWeights]]) -> CachedFile:
    found = path.stat()
    modified = datetime.fromtimestamp(found.st_mtime, timezone.utc).isoformat(timespec="seconds")
    local = owners[0][1] if owners else None
    names = tuple(name for name, _ in owners)
    return CachedFile(
        path.stem, found.st_size, modified, names, local.source if local else "", local.pin if local else ""
    )


def _path_of(file: CachedFile) -> Path:
    return cache_path() / "objects" / f"{file.sha256}.safetensors"
