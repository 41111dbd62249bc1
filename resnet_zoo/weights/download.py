"""From a weight set to a local file whose every byte is known.

Sources, in order: the cache; a mirror (``RESNET_ZOO_MIRROR``); the safetensors file under each of the manifest's
``base_urls``; the upstream checkpoint, which is converted. What each of them said is reported if all fail.

Upstream names carry only the first 8 digits (32 bits) of a sha256, too few against somebody who wants to deceive. So
what was fetched first is pinned in the cache with its full sha256, and a different file is refused from then on.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from resnet_zoo.base.files import sha256_of
from resnet_zoo.base.machine import is_offline
from resnet_zoo.catalog.manifest import current_manifest, manifest_path
from resnet_zoo.catalog.records import HUB_SCHEME, Entry, UpstreamOrigin, WeightSet, WeightsFile
from resnet_zoo.errors import DownloadError, IntegrityError, WeightsUnavailableError, ZooError
from resnet_zoo.weights import cache
from resnet_zoo.weights.cache import Pin
from resnet_zoo.weights.hub_files import HubFile, fetch_hub_file, find_hub_file
from resnet_zoo.weights.transfer import Patience, fetch

Progress = Callable[[str, int, int | None], None]
"""Called with (file name, bytes there, bytes in all or None)."""

Convert = Callable[[Path, Path, str], object]
"""Writes the checkpoint at the first path, which has this sha256, as safetensors at the second."""

MAX_CHECKPOINT_BYTES = 1 << 30
"""Largest upstream checkpoint that is fetched; their sizes are not published. The largest row's has 241 MB."""

FULL_SHA256_DIGITS = 64


@dataclass(frozen=True)
class LocalWeights:
    """A weight set's file on this machine.

    Attributes:
        path: The safetensors file.
        sha256: What its sha256 must be, all 64 digits.
        source: Where the bytes came from: a URL or a path.
        source_sha256: Sha256 of the source; that of the file itself where nothing was converted.
        pin: ``sha256`` where the manifest vouches for the file, ``32-bit pin`` where it only knows eight digits of
            the upstream checkpoint's name and the rest was learnt at the first download.
    """

    path: Path
    sha256: str
    source: str
    source_sha256: str
    pin: str


@dataclass(frozen=True)
class _Source:
    """A place a file may be had from: an http(s) URL, an ``hf://`` address, or a path."""

    address: str
    is_upstream: bool


def cached_weights(entry: Entry, tag: str) -> LocalWeights | None:
    """Return a weight set's file if it is in the cache; its bytes are not read.

    Raises:
        UnknownWeightsError: The row has no such tag.
    """
    weights = entry.weight_set(tag)
    pin = _pin_of(weights)
    if weights.file is None:
        return _pinned_weights(weights, pin) if pin and cache.object_path(pin.object_sha256).is_file() else None
    if not cache.object_path(weights.file.sha256).is_file():
        return _in_hubs_cache(weights.file) if weights.file.is_on_hub else None
    if pin and pin.object_sha256 == weights.file.sha256:
        return _pinned_weights(weights, pin)
    return _published_weights(weights.file, published_at(weights.file))


def shipped_weights(entry: Entry, tag: str) -> LocalWeights | None:
    """Return a weight set's file in a folder beside the manifest (a checkout has ``weights/``), to be used in place.

    Its bytes are not read.

    Raises:
        UnknownWeightsError: The row has no such tag.
    """
    file = entry.weight_set(tag).file
    folders = (
        [] if file is None or file.is_on_hub else [base for base in current_manifest().base_urls if "://" not in base]
    )
    for path in (Path(_joined(base, file.path)) for base in folders if file is not None):
        if file is not None and path.is_file():
            return LocalWeights(path, file.sha256, str(path), file.sha256, "sha256")
    return None


def fetched_upstream(entry: Entry, tag: str) -> Pin | None:
    """Return what was learnt of a weight set's upstream checkpoint when it was fetched, if it was.

    Raises:
        UnknownWeightsError: The row has no such tag.
        CheckpointError: The record of the cache is damaged.
    """
    return _pin_of(entry.weight_set(tag))


def obtain_weights(
    entry: Entry,
    tag: str,
    convert: Convert,
    *,
    anew: bool = False,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> LocalWeights:
    """Return a weight set's local file, fetched if it is not in the cache.

    What comes from a source is checked before it enters the cache. What is in the cache must be checked by whoever
    reads it, against ``LocalWeights.sha256``.

    Args:
        entry: The row.
        tag: The weight set.
        convert: Turns an upstream checkpoint into safetensors.
        anew: Fetch a file of the Hub again although its cache has it: it was damaged.
        patience: Time limits and retries.
        progress: Called while bytes arrive.

    Raises:
        UnknownWeightsError: The row has no such tag.
        WeightsUnavailableError: The weight set has no source at all.
        DownloadError: Every source failed; lists what each said.
        OSError: The cache cannot be written.
    """
    weights = entry.weight_set(tag)
    found = cached_weights(entry, tag)
    is_damaged = anew and found is not None and found.path != cache.object_path(found.sha256)
    if found is not None and not is_damaged:
        _drop_leftovers(weights)
        return found
    sources = list(_sources(weights))
    if not sources:
        raise WeightsUnavailableError(entry.name, tag, "no source is configured for it. Set RESNET_ZOO_MIRROR.")
    attempts: dict[str, str] = {}
    for source in sources:
        try:
            if weights.file is not None and source.address == weights.file.path:
                return _fetch_from_hub(weights.file, progress, anew=is_damaged)
            return _from_source(entry, tag, source, convert, patience or Patience(), progress)
        except DownloadError as error:
            said = error.attempts.get(source.address) or "; ".join(error.attempts.values())
            said = " ".join(said.split())  # a server's words may be of several lines
            attempts[source.address] = said if not isinstance(error, IntegrityError) else _mismatch(error)
        except ZooError as error:  # a checkpoint that was refused, or fits another row
            attempts[source.address] = str(error)
    raise DownloadError(attempts, _next_step(entry, tag))


def _next_step(entry: Entry, tag: str) -> str:
    """Return what to do without a weight set: name another one that is here, if there is one, or find this one."""
    others = [other for other in entry.weights if other != tag and is_here(entry, other)]
    here = f"No other weights of {entry.name} are on this machine. "
    if others:
        here = f"Weights of {entry.name} on this machine: {', '.join(others)} (--weights {others[0]}). "
    elsewhere = ""
    if len(entry.weights) > 1 + len(others):
        elsewhere = f"`resnet-zoo list {entry.name} --weights` shows what can be had from other hosts. "
    how = "Leave offline mode" if is_offline() else "Check the network"
    return f"{here}{elsewhere}{how}, or pass the weights' file, or --mirror with a folder or address that has it."


def is_here(entry: Entry, tag: str) -> bool:
    """Tell whether a weight set can be used without a download: it ships, or is in a cache."""
    with contextlib.suppress(ZooError):  # a damaged record counts as absent
        return shipped_weights(entry, tag) is not None or cached_weights(entry, tag) is not None
    return False


def _sources(weights: WeightSet) -> Iterator[_Source]:
    mirror = os.environ.get("RESNET_ZOO_MIRROR")
    if mirror and "://" not in mirror:
        mirror = str(Path(mirror).expanduser().absolute())
    origin = weights.origin if isinstance(weights.origin, UpstreamOrigin) else None
    if mirror and weights.file is not None:
        yield _Source(_joined(mirror, weights.file.name), is_upstream=False)
    if mirror and origin is not None:
        yield _Source(_joined(mirror, origin.file_name), is_upstream=True)
    if weights.file is not None and weights.file.is_on_hub:
        yield _Source(weights.file.path, is_upstream=False)
    elif weights.file is not None:
        for base in current_manifest().base_urls:
            yield _Source(_joined(base, weights.file.path), is_upstream=False)
    if origin is not None:
        yield _Source(origin.url, is_upstream=True)


def _joined(base: str, name: str) -> str:
    """Put a file's name behind a URL, or behind a folder (a relative one stands beside the manifest)."""
    if "://" in base:
        return f"{base.rstrip('/')}/{name}"
    return str(manifest_path().parent / Path(base).expanduser() / name)


def _from_source(
    entry: Entry, tag: str, source: _Source, convert: Convert, patience: Patience, progress: Progress | None
) -> LocalWeights:
    """Fetch from one source, check, and put into the cache; one process at a time for the same file."""
    weights = entry.weight_set(tag)
    name = _file_name(weights, source)
    expected = _expected_sha256(weights, source)
    if "://" in source.address and is_offline():
        raise DownloadError({source.address: _OFFLINE})
    key = _key(weights, source)
    with cache.lock(key):
        found = cached_weights(entry, tag)
        if found is not None:  # another process was faster
            return found
        part = cache.part_path(key, name)
        digest = _collect(source, weights, part, expected, patience, progress)
        if weights.file is not None and not source.is_upstream:
            cache.add_object(part, digest)
            return _published_weights(weights.file, source.address)
        return _convert_and_pin(weights, source, part, digest, convert)


def _collect(
    source: _Source,
    weights: WeightSet,
    part: Path,
    expected: str,
    patience: Patience,
    progress: Progress | None,
) -> str:
    """Bring a source's bytes into ``part`` and return their sha256, which begins as expected.

    What continued an older part, or came out of Hugging Face's cache, and then has the wrong hash is fetched once more
    from the beginning.
    """
    for attempt in range(2):
        digest, was_there = _transfer(source, weights, part, patience, progress, anew=attempt > 0)
        if digest.startswith(expected):
            return digest
        cache.drop_part(part)
        if not was_there:
            break
    raise IntegrityError(source.address, expected, digest)


def _transfer(
    source: _Source,
    weights: WeightSet,
    part: Path,
    patience: Patience,
    progress: Progress | None,
    *,
    anew: bool,
) -> tuple[str, bool]:
    """Return the sha256 of what arrived, and whether some of it may have been there before."""
    part.parent.mkdir(parents=True, exist_ok=True)
    if source.address.startswith(("http://", "https://")):
        size_bytes = _size_of(weights, source)
        result = fetch(
            source.address,
            part,
            max_bytes=size_bytes or MAX_CHECKPOINT_BYTES,
            exact=size_bytes is not None,
            patience=patience,
            progress=_titled(progress, part),
        )
        return result.sha256, result.resumed_bytes > 0
    is_hub = source.address.startswith(HUB_SCHEME)
    path = Path(source.address)
    if is_hub:
        path = fetch_hub_file(
            HubFile.at(source.address), expected=weights.file, again=anew, progress=_titled(progress, part)
        )
    try:
        opened = path.open("rb")
    except OSError as error:
        raise DownloadError({source.address: error.strerror or str(error)}) from error
    with opened, part.open("wb") as target:
        shutil.copyfileobj(opened, target)
    return sha256_of(part), is_hub


def _titled(progress: Progress | None, path: Path) -> Callable[[int, int | None], None] | None:
    """Return a function that reports under a file's name."""
    return (lambda there, total: progress(path.name, there, total)) if progress else None


def _fetch_from_hub(file: WeightsFile, progress: Progress | None, *, anew: bool) -> LocalWeights:
    """Let huggingface_hub fetch a file of others' repositories, to be used where it puts it.

    Raises:
        DownloadError: Offline mode is on, or the client's own words.
        IntegrityError: It has another hash; it was removed from the client's cache.
    """
    if is_offline():
        raise DownloadError({file.path: _OFFLINE})
    titled = _titled(progress, Path(file.name))
    path = fetch_hub_file(HubFile.at(file.path), expected=file, again=anew, progress=titled)
    digest = sha256_of(path)
    if digest != file.sha256:
        _forget_on_hub(path)
        raise IntegrityError(file.path, file.sha256, digest)
    return _on_hub(file, path)


def _forget_on_hub(path: Path) -> None:
    """Remove a file from the cache of huggingface_hub, which would go on giving it: its blob, and the link to that."""
    blob, repository = path.resolve(), path.parents[2].resolve()
    if blob.is_relative_to(repository):  # a link that leads elsewhere is removed, and what it leads to stays
        blob.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


_OFFLINE = "not asked, because offline mode is on"


def _on_hub(file: WeightsFile, path: Path) -> LocalWeights:
    return LocalWeights(path, file.sha256, file.path, file.sha256, "sha256")


def _in_hubs_cache(file: WeightsFile) -> LocalWeights | None:
    """Return a file of others' repositories where huggingface_hub keeps it, if it has it; without network."""
    found = find_hub_file(HubFile.at(file.path))
    return _on_hub(file, found) if found is not None else None


def _convert_and_pin(weights: WeightSet, source: _Source, part: Path, digest: str, convert: Convert) -> LocalWeights:
    """Convert a fetched checkpoint, remember both hashes, and put the result into the cache.

    In this order, so that whoever is killed on the way leaves nothing that the next call does not continue or remove.
    """
    target = part.with_name(f"{digest}.safetensors")
    for stray in (target, *cache.cache_path().glob(f"pins/.{glob.escape(_pin_name(weights))}.*.part")):
        stray.unlink(missing_ok=True)  # of a process that was killed before it could move it
    try:
        convert(part, target, digest)
        size_bytes, object_sha256 = part.stat().st_size, sha256_of(target)
        if weights.file is not None and object_sha256 != weights.file.sha256:
            raise IntegrityError(f"{source.address}, converted", weights.file.sha256, object_sha256)
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        pin = Pin(source.address, digest, size_bytes, object_sha256, date)
        cache.write_pin(_pin_name(weights), pin)
        cache.add_object(target, object_sha256)
    finally:
        cache.drop_part(part)
    return _pinned_weights(weights, pin)


def _key(weights: WeightSet, source: _Source) -> str:
    """Return what a transfer is filed under; it stays the same when a pin becomes known."""
    if source.is_upstream and isinstance(weights.origin, UpstreamOrigin):
        return weights.origin.sha256_prefix[:8]
    return weights.file.sha256[:16] if weights.file is not None else ""


def _drop_leftovers(weights: WeightSet) -> None:
    """Remove what a process left that was killed when it had put the weights in place, and only that was missing."""
    for source in _sources(weights):
        key, name = _key(weights, source), _file_name(weights, source)
        folder = cache.cache_path() / "partial" / key
        if folder.is_dir():
            with contextlib.suppress(OSError, DownloadError), cache.lock(key, timeout_s=0):  # read-only, or in use
                cache.drop_part(folder / name)


def _expected_sha256(weights: WeightSet, source: _Source) -> str:
    """Return what the sha256 of a source's file must begin with: all of it where it is known or pinned."""
    if not source.is_upstream:
        return weights.file.sha256 if weights.file is not None else ""
    pin = _pin_of(weights)
    if pin is not None:
        return pin.sha256
    return weights.origin.sha256_prefix if isinstance(weights.origin, UpstreamOrigin) else ""


def _size_of(weights: WeightSet, source: _Source) -> int | None:
    """Return the size of a source's file, where it is known."""
    if not source.is_upstream:
        return weights.file.size_bytes if weights.file is not None else None
    witness = weights.origin.witness if isinstance(weights.origin, UpstreamOrigin) else None
    return witness.size_bytes if witness is not None else None


def _pin_of(weights: WeightSet) -> Pin | None:
    """Return what is known of the upstream checkpoint, if it does not contradict the manifest."""
    if not isinstance(weights.origin, UpstreamOrigin):
        return None
    pin = cache.read_pin(_pin_name(weights))
    return pin if pin is not None and pin.sha256.startswith(weights.origin.sha256_prefix) else None


def _pin_name(weights: WeightSet) -> str:
    """Return what a pin is filed under: another zoo may have another file of the same name."""
    origin = weights.origin
    return f"{origin.sha256_prefix[:8]}-{origin.file_name}" if isinstance(origin, UpstreamOrigin) else ""


def _file_name(weights: WeightSet, source: _Source) -> str:
    """Return a source's file name as the manifest has it; a path's may hold what means something in an address."""
    if source.is_upstream and isinstance(weights.origin, UpstreamOrigin):
        return weights.origin.file_name
    return weights.file.name if weights.file is not None else ""


def _pinned_weights(weights: WeightSet, pin: Pin) -> LocalWeights:
    known = len(weights.origin.sha256_prefix) if isinstance(weights.origin, UpstreamOrigin) else 0
    is_vouched_for = weights.file is not None or known == FULL_SHA256_DIGITS
    kind = "sha256" if is_vouched_for else f"{4 * known}-bit pin"
    return LocalWeights(cache.object_path(pin.object_sha256), pin.object_sha256, pin.url, pin.sha256, kind)


def _published_weights(file: WeightsFile, address: str) -> LocalWeights:
    return LocalWeights(cache.object_path(file.sha256), file.sha256, address, file.sha256, "sha256")


def published_at(file: WeightsFile) -> str:
    """Return where a file is published first of all; its path where the manifest names no place."""
    if file.is_on_hub:
        return file.path
    bases = current_manifest().base_urls
    return _joined(bases[0], file.path) if bases else file.path


def _mismatch(error: IntegrityError) -> str:
    return f"wrong bytes: expected sha256 {error.expected}, got {error.actual}"
