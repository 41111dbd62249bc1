"""From a weight set to a local file whose every byte is known.

What ships beside the manifest, or is in a cache, is used where it lies. Else sources are asked, in order: a mirror
(``RESNET_ZOO_MIRROR``); the safetensors file under each of the manifest's ``base_urls``, or on the Hugging Face Hub;
the upstream checkpoint, which is converted. What each of them said is reported if all fail.

Upstream names carry only the first 8 digits (32 bits) of a sha256, too few against somebody who wants to deceive. So
what was fetched first is pinned in the cache with its full sha256, and a different file is refused from then on.
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from resnet_zoo.base.files import open_regular, sha256_of, writing_to
from resnet_zoo.base.machine import is_offline
from resnet_zoo.base.progress import Progress, TitledProgress, under_title
from resnet_zoo.base.shown import shown_address
from resnet_zoo.catalog.records import HUB_SCHEME, Entry, WeightSet, WeightsFile
from resnet_zoo.errors import DownloadError, IntegrityError, WeightsUnavailableError, ZooError
from resnet_zoo.weights import cache
from resnet_zoo.weights.cache import Pin
from resnet_zoo.weights.hub_files import HubFile, fetch_hub_file, forget_hub_file
from resnet_zoo.weights.places import (
    LocalWeights,
    Source,
    address_of,
    cached_weights,
    checked_by,
    is_here,
    pin_name,
    pinned_weights,
    sources_of,
    weights_here,
)
from resnet_zoo.weights.transfer import Patience, fetch

"""Called with (file name, bytes there, bytes in all, 0 if unknown)."""

Convert = Callable[[Path, Path, str], object]
"""Writes the checkpoint at the first path, which has this sha256, as safetensors at the second."""

_MAX_TRANSFERS = 4
"""Transfers of one file from one source in one call."""

MAX_CHECKPOINT_BYTES = 1 << 30
"""Largest upstream checkpoint that is fetched; their sizes are not published. The largest row's has 241 MB."""


def obtain_weights(
    entry: Entry,
    tag: str,
    convert: Convert,
    *,
    damaged: Path | None = None,
    patience: Patience | None = None,
    progress: TitledProgress | None = None,
) -> LocalWeights:
    """Return a weight set's local file, fetched if it is not here.

    What comes from a source is checked before it enters the cache. What is here must be checked by whoever reads it,
    against ``LocalWeights.sha256``.

    Args:
        entry: The row.
        tag: The weight set.
        convert: Turns an upstream checkpoint into safetensors.
        damaged: A file that was returned before and is not what it should be: another one is wanted.
        patience: Time limits and retries.
        progress: Called while bytes arrive.

    Raises:
        UnknownWeightsError: The row has no such tag.
        WeightsUnavailableError: The weight set has no source at all.
        DownloadError: Every source failed; lists what each said.
        OSError: The cache cannot be written.
    """
    weights = entry.weight_set(tag)
    found = weights_here(entry, tag, damaged=damaged)
    if found is not None:
        return found
    sources = list(sources_of(weights))
    if not sources:
        raise WeightsUnavailableError(entry.name, tag, "no source is configured for it. Set RESNET_ZOO_MIRROR.")
    attempts: dict[str, str] = {}
    has_wrong_bytes = False
    for source in sources:
        address = shown_address(source.address)
        if source.is_remote and is_offline():
            attempts[address] = "not contacted, because offline mode is on"
            continue
        shown = under_title(progress, source.name)
        try:
            if source.file is not None and source.address == source.file.path:
                return _fetch_from_hub(source.file, shown, anew=damaged is not None)
            return _from_source(entry, tag, source, convert, damaged, patience or Patience(), shown)
        except IntegrityError as error:
            attempts[address] = f"wrong bytes: expected sha256 {error.expected}, got {error.actual}"
            has_wrong_bytes = True
        except DownloadError as error:
            said = error.attempts.get(address) or "; ".join(error.attempts.values())
            attempts[address] = " ".join(said.split())  # a server's words may be of several lines
        except ZooError as error:  # a checkpoint that was refused, or fits another row
            attempts[address] = str(error)
    raise DownloadError(attempts, next_step(entry, tag), has_wrong_bytes=has_wrong_bytes)


def next_step(entry: Entry, tag: str) -> str:
    """Return what to do without a weight set: what else of the row is here, and how to come by this one."""
    others = [other for other in entry.weights if other != tag and is_here(entry, other)]
    here = f"No other weights of {entry.name} are on this machine. "
    if others:
        here = f"Weights of {entry.name} on this machine: {', '.join(others)} (--weights {others[0]}). "
    elsewhere = ""
    if len(entry.weights) > 1 + len(others):
        elsewhere = f"`resnet-zoo list {entry.name} --weights` shows what other hosts have. "
    how = "Leave offline mode, or pass" if is_offline() else "Check the network, or pass"
    if not address_of(entry.weights[tag]):
        how = "This package has no address for the file, which is in the project's checkout and its releases. Pass"
    return f"{here}{elsewhere}{how} the weights' file, or --mirror with a folder or address that has it."


def _from_source(
    entry: Entry,
    tag: str,
    source: Source,
    convert: Convert,
    damaged: Path | None,
    patience: Patience,
    progress: Progress | None,
) -> LocalWeights:
    """Fetch from one source, check, and put into the cache; one process at a time for the same file."""
    with cache.lock(source.key):
        found = cached_weights(entry, tag)
        if found is not None and found.path != damaged:  # another process was faster
            return found
        part = cache.part_path(source.key, source.name)
        digest = _collect(source, part, patience, progress)
        if source.file is None:
            return _convert_and_pin(entry.weight_set(tag), source, part, digest, convert)
        cache.add_object(part, digest)
    return LocalWeights(cache.object_path(digest), digest, shown_address(source.address), digest, "sha256")


def _collect(source: Source, part: Path, patience: Patience, progress: Progress | None) -> str:
    """Bring a source's bytes into ``part`` and return their sha256, which begins as expected.

    Wrong bytes that came over the network are fetched once more from the beginning: a bit may have flipped, or an older
    part was of another file. A body whose end nobody knows may have been cut short, and is continued.
    """
    tries = 2 if source.is_remote else 1
    for attempt in range(_MAX_TRANSFERS):
        digest, has_end = _transfer(source, part, patience, progress, anew=attempt > 0)
        if digest.startswith(source.sha256):
            return digest
        if has_end:
            cache.drop_part(part)
            tries -= 1
        if not tries:
            break
    raise IntegrityError(shown_address(source.address), source.sha256, digest)


def _transfer(
    source: Source, part: Path, patience: Patience, progress: Progress | None, *, anew: bool
) -> tuple[str, bool]:
    """Return the sha256 of what is there, and whether that is all (see `Fetched.has_end`)."""
    part.parent.mkdir(parents=True, exist_ok=True)
    if source.address.startswith(("http://", "https://")):
        result = fetch(
            source.address,
            part,
            max_bytes=source.size_bytes or MAX_CHECKPOINT_BYTES,
            exact=source.size_bytes is not None,
            patience=patience,
            progress=progress,
        )
        return result.sha256, result.has_end
    path = Path(source.address)
    if source.address.startswith(HUB_SCHEME):
        path = fetch_hub_file(HubFile.at(source.address), expected=source.file, again=anew, progress=progress)
    try:
        opened = open_regular(path)
    except OSError as error:
        raise DownloadError({source.address: error.strerror or str(error)}) from error
    with opened, writing_to(part), part.open("wb") as target:
        shutil.copyfileobj(opened, target)
    return sha256_of(part), True


def _fetch_from_hub(file: WeightsFile, progress: Progress | None, *, anew: bool) -> LocalWeights:
    """Let huggingface_hub fetch a file of others' repositories, to be used where it puts it; once more if it is wrong.

    Raises:
        DownloadError: The client's own words.
        IntegrityError: It has another hash; it was removed from the client's cache.
    """
    for again in (anew, True):
        path = fetch_hub_file(HubFile.at(file.path), expected=file, again=again, progress=progress)
        digest = sha256_of(path)
        if digest == file.sha256:
            return checked_by(file, path, file.path)
        forget_hub_file(path)
    raise IntegrityError(file.path, file.sha256, digest)


def _convert_and_pin(weights: WeightSet, source: Source, part: Path, digest: str, convert: Convert) -> LocalWeights:
    """Convert a fetched checkpoint, remember both hashes, and put the result into the cache.

    In this order, so that whoever is killed on the way leaves nothing that the next call does not continue, or
    ``cache prune`` remove.
    """
    name = pin_name(source.key, source.name)
    target = part.with_name(f"{digest}.safetensors")
    for stray in (target, *cache.cache_path().glob(f"pins/.{glob.escape(name)}.*.part")):
        stray.unlink(missing_ok=True)  # of a process that was killed before it could move it
    try:
        convert(part, target, digest)
        size_bytes, object_sha256 = part.stat().st_size, sha256_of(target)
        if weights.file is not None and object_sha256 != weights.file.sha256:
            converted = f"{shown_address(source.address)} (converted)"
            raise IntegrityError(converted, weights.file.sha256, object_sha256)
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        pin = Pin(shown_address(source.address), digest, size_bytes, object_sha256, date)
        cache.write_pin(name, pin)
        cache.add_object(target, object_sha256)
    finally:
        cache.drop_part(part)
    return pinned_weights(weights, pin)
