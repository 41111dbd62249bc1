"""What the cache holds, by row; checking, removing and exporting it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from resnet_zoo.base.files import is_reachable_folder, sha256_of, write_atomically
from resnet_zoo.base.shown import shown_address
from resnet_zoo.catalog.listing import measured_on
from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.catalog.records import HUB_SCHEME, Entry, RunOrigin, UpstreamOrigin, WeightSet
from resnet_zoo.errors import ArgumentError, CheckpointError, DownloadError, IntegrityError
from resnet_zoo.weights.cache import cache_path, lock, object_path
from resnet_zoo.weights.places import (
    FULL_SHA256_DIGITS,
    LocalWeights,
    address_of,
    cached_weights,
    is_here,
    shipped_weights,
)


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
    rank = {sha256: position for position, sha256 in enumerate(owners)}
    folder = cache_path() / "objects"
    paths = folder.glob("*.safetensors") if is_reachable_folder(folder) else ()
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
class TestedAt:
    """The accuracy of a weight set at an image size, in percent, and who says so.

    Attributes:
        size: Height and width of the test images, in pixels.
        top1: As its publisher printed it, or as measured here for weights trained here.
        top5: Likewise.
        source: Where it was printed; for weights trained here, the images it was measured on.
    """

    size: int
    top1: str
    top5: str
    source: str


@dataclass(frozen=True)
class WeightFacts:
    """A weight set in a line.

    Attributes:
        model: The row.
        weights: The tag.
        is_default: Whether ``pretrained=True`` stands for it.
        tested: Its accuracy, at the size it is usually tested at and at others; empty if nobody has tested it.
        pin_bits: Bits of its sha256 that are known before the first byte is fetched.
        size_bytes: Of its file, where it is known.
        license: Of the weights.
        source: The address or path of its file.
        place: ``ships`` (beside the manifest), ``here`` (in a cache), the host it is fetched from, or ``no address``.
    """

    model: str
    weights: str
    is_default: bool
    tested: tuple[TestedAt, ...]
    pin_bits: int
    size_bytes: int | None
    license: str
    source: str
    place: str

    @property
    def is_here(self) -> bool:
        """Whether it can be used without a download."""
        return self.place in ("ships", "here")


def weight_facts(entries: Iterable[Entry], *, with_caches: bool = True) -> list[WeightFacts]:
    """Return the weight sets of rows, in their order; see `facts_of_weights`."""
    return [facts_of_weights(entry, tag, with_caches=with_caches) for entry in entries for tag in entry.weights]


def best_tested(sets: Iterable[WeightFacts]) -> tuple[WeightFacts, TestedAt] | None:
    """Return the weight set with the highest top-1, and the size it has it at; the first of equal ones."""
    found = [(one, tested) for one in sets for tested in one.tested]
    return max(found, key=lambda pair: float(pair[1].top1), default=None)


def facts_of_weights(entry: Entry, tag: str, *, with_caches: bool = True) -> WeightFacts:
    """Return a weight set in a line.

    Args:
        entry: The row.
        tag: The weight set.
        with_caches: Look for it in the caches of this machine too; what is written for others to read does not.

    Raises:
        UnknownWeightsError: The row has no such tag.
    """
    found = entry.weight_set(tag)
    shipped = shipped_weights(entry, tag)
    source = str(shipped.path) if shipped else shown_address(address_of(found))
    place = "ships" if shipped else "here" if with_caches and is_here(entry, tag) else _host(source)
    return WeightFacts(
        model=entry.name,
        weights=tag,
        is_default=tag == entry.default_weights,
        tested=_tested(entry, found),
        pin_bits=_pin_bits(found),
        size_bytes=_size_bytes(found),
        license=found.license,
        source=source,
        place=place,
    )


def _tested(entry: Entry, found: WeightSet) -> tuple[TestedAt, ...]:
    size, printed = entry.input_size[-1], entry.published
    if found.published:
        return tuple(TestedAt(own.preprocess.crop or size, own.top1, own.top5, own.source) for own in found.published)
    if not isinstance(found.origin, RunOrigin):
        return (TestedAt(size, printed.top1, printed.top5, printed.source),)
    if found.measured is None:
        return ()
    top1, top5 = (f"{value:.2f}" for value in (found.measured.top1, found.measured.top5))
    return (TestedAt(size, top1, top5, measured_on(entry, found.measured)),)


def _size_bytes(found: WeightSet) -> int | None:
    if found.file is None and isinstance(found.origin, UpstreamOrigin):
        return found.origin.witness.size_bytes if found.origin.witness else None
    return found.file.size_bytes if found.file else None


def _pin_bits(found: WeightSet) -> int:
    if found.file is None and isinstance(found.origin, UpstreamOrigin):
        return 4 * len(found.origin.sha256_prefix)
    return 4 * FULL_SHA256_DIGITS


def _host(source: str) -> str:
    """Return the host of an address; a path leads to no host."""
    if source.startswith(HUB_SCHEME):
        return "huggingface.co"
    return urlsplit(source).hostname or "no address"


def damaged_files(files: Iterable[CachedFile]) -> list[CachedFile]:
    """Return the files whose bytes do not have their sha256."""
    return [file for file in files if sha256_of(object_path(file.sha256)) != file.sha256]


def remove_files(files: Iterable[CachedFile]) -> int:
    """Remove files from the cache and return how many bytes that freed."""
    freed = 0
    for file in files:
        object_path(file.sha256).unlink(missing_ok=True)
        freed += file.size_bytes
    return freed


def select_files(names: Iterable[str]) -> list[CachedFile]:
    """Return the cached files of rows (or of ``row/tag``).

    Raises:
        UnknownModelError: No row has this name.
        ArgumentError: Nothing of a row is in the cache.
    """
    files = list_cache()
    chosen = []
    for name in names:
        row, _, tag = name.partition("/")
        row = current_manifest().find(row).name
        found = [file for file in files if any(_belongs(weights, row, tag) for weights in file.weights)]
        if not found:
            raise ArgumentError(f"The cache has no weights of {name}; `resnet-zoo cache list` shows what it has.")
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
