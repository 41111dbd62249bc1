"""Where a weight set's file is on this machine, and where else it may be had from; nothing is fetched or read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resnet_zoo.base.files import expanded, is_reachable_file
from resnet_zoo.base.shown import shown_address
from resnet_zoo.catalog.manifest import current_manifest, manifest_path
from resnet_zoo.catalog.records import HUB_SCHEME, Entry, PageOrigin, RunOrigin, UpstreamOrigin, WeightSet, WeightsFile
from resnet_zoo.errors import ZooError
from resnet_zoo.weights import cache
from resnet_zoo.weights.cache import Pin
from resnet_zoo.weights.hub_files import HubFile, find_hub_file

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
class Source:
    """A place that a weight set's file may be had from.

    Attributes:
        address: An http(s) URL, an ``hf://`` address, or a path.
        name: The file's name as the manifest has it; an address may hold what means something in a path.
        key: What a transfer is filed under; it stays the same when more is learnt of the file.
        sha256: What is known of its sha256: all 64 digits, or the leading ones.
        size_bytes: Its size, where it is known.
        file: What the manifest says of it; ``None``: it is an upstream checkpoint, which has to be converted.
    """

    address: str
    name: str
    key: str
    sha256: str
    size_bytes: int | None
    file: WeightsFile | None

    @property
    def is_remote(self) -> bool:
        """Whether the network may be needed."""
        return "://" in self.address


def sources_of(weights: WeightSet) -> Iterator[Source]:
    """Yield the places a weight set may be had from, in the order in which they are asked."""
    mirror, file, origin = os.environ.get("RESNET_ZOO_MIRROR"), weights.file, weights.origin
    if mirror and "://" not in mirror:
        mirror = str(expanded(mirror).absolute())
    upstream = origin if isinstance(origin, UpstreamOrigin) else None
    if mirror and file:
        yield _published_source(file, _joined(mirror, file.name))
    if mirror and upstream:
        yield _upstream_source(upstream, _joined(mirror, upstream.file_name))
    if file:
        yield from (_published_source(file, address) for address in _published_addresses(file))
    if upstream:
        yield _upstream_source(upstream, upstream.url)


def _published_source(file: WeightsFile, address: str) -> Source:
    return Source(address, file.name, file.sha256[:16], file.sha256, file.size_bytes, file)


def _upstream_source(origin: UpstreamOrigin, address: str) -> Source:
    pin = _pin_of(origin)
    known = pin.sha256 if pin is not None else origin.sha256_prefix
    size = origin.witness.size_bytes if origin.witness is not None else None
    return Source(address, origin.file_name, origin.sha256_prefix[:8], known, size, None)


def _published_addresses(file: WeightsFile) -> list[str]:
    if file.is_on_hub:
        return [file.path]
    return [_joined(base, file.path) for base in current_manifest().base_urls]


def _joined(base: str, name: str) -> str:
    """Put a file's name behind a URL, or behind a folder (a relative one stands beside the manifest)."""
    if "://" in base:
        return f"{base.rstrip('/')}/{name}"
    return str(manifest_path().parent / base / name)


def shipped_weights(entry: Entry, tag: str) -> LocalWeights | None:
    """Return a weight set's file in a folder beside the manifest (a checkout has ``weights/``), to be used in place.

    Its bytes are not read.

    Raises:
        UnknownWeightsError: The row has no such tag.
    """
    file = entry.weight_set(tag).file
    paths = [] if file is None else [Path(place) for place in _published_addresses(file) if "://" not in place]
    found = next((path for path in paths if is_reachable_file(path)), None)
    return checked_by(file, found, str(found)) if file is not None and found is not None else None


def cached_weights(entry: Entry, tag: str) -> LocalWeights | None:
    """Return a weight set's file if it is in a cache, ours or that of the Hub's client; its bytes are not read.

    Raises:
        UnknownWeightsError: The row has no such tag.
    """
    weights = entry.weight_set(tag)
    file, pin = weights.file, _pin_of(weights.origin)
    if pin is not None and (file is None or file.sha256 == pin.object_sha256):
        found = pinned_weights(weights, pin)
        return found if is_reachable_file(found.path) else None
    if file is None:
        return None
    if is_reachable_file(cache.object_path(file.sha256)):
        return checked_by(file, cache.object_path(file.sha256), published_at(file))
    for address in _published_addresses(file):
        path = find_hub_file(HubFile.at(address)) if address.startswith(HUB_SCHEME) else None
        if path is not None:
            return checked_by(file, path, address)
    return None


def weights_here(entry: Entry, tag: str, *, damaged: Path | None = None) -> LocalWeights | None:
    """Return a weight set's file if it ships, else if it is in a cache; its bytes are not read.

    Args:
        entry: The row.
        tag: The weight set.
        damaged: A file that is not what it should be, and is passed over.

    Raises:
        UnknownWeightsError: The row has no such tag.
        CheckpointError: The record of the cache is damaged.
    """
    places = (find(entry, tag) for find in (shipped_weights, cached_weights))
    return next((found for found in places if found is not None and found.path != damaged), None)


def is_here(entry: Entry, tag: str) -> bool:
    """Tell whether a weight set can be used without a download: it ships, or is in a cache."""
    with contextlib.suppress(ZooError):  # a damaged record counts as absent
        return weights_here(entry, tag) is not None
    return False


def fetched_upstream(entry: Entry, tag: str) -> Pin | None:
    """Return what was learnt of a weight set's upstream checkpoint when it was fetched, if it was.

    Raises:
        UnknownWeightsError: The row has no such tag.
        CheckpointError: The record of the cache is damaged.
    """
    return _pin_of(entry.weight_set(tag).origin)


def published_at(file: WeightsFile) -> str:
    """Return where a file is published: the first address on the web, else the first place."""
    places = _published_addresses(file)
    return next((place for place in places if "://" in place), next(iter(places), file.path))


def address_of(weights: WeightSet) -> str:
    """Return the first address on the web that a weight set is asked for at, without mirrors; empty if it has none."""
    places = _published_addresses(weights.file) if weights.file is not None else []
    places += [weights.origin.url] if isinstance(weights.origin, UpstreamOrigin) else []
    return next((place for place in places if "://" in place), "")


def checked_by(file: WeightsFile, path: Path, source: str) -> LocalWeights:
    """Return a published file: the manifest knows its whole hash."""
    return LocalWeights(path, file.sha256, shown_address(source), file.sha256, "sha256")


def pinned_weights(weights: WeightSet, pin: Pin) -> LocalWeights:
    """Return what an upstream checkpoint was converted to, in the cache."""
    known = len(weights.origin.sha256_prefix) if isinstance(weights.origin, UpstreamOrigin) else 0
    is_vouched_for = weights.file is not None or known == FULL_SHA256_DIGITS
    kind = "sha256" if is_vouched_for else f"{4 * known}-bit pin"
    return LocalWeights(
        cache.object_path(pin.object_sha256), pin.object_sha256, shown_address(pin.url), pin.sha256, kind
    )


def _pin_of(origin: UpstreamOrigin | PageOrigin | RunOrigin) -> Pin | None:
    """Return what is known of the upstream checkpoint, if it does not contradict the manifest."""
    if not isinstance(origin, UpstreamOrigin):
        return None
    pin = cache.read_pin(pin_name(origin.sha256_prefix[:8], origin.file_name))
    return pin if pin is not None and pin.sha256.startswith(origin.sha256_prefix) else None


def pin_name(key: str, file_name: str) -> str:
    """Return what a pin is filed under: another zoo may have another file of the same name."""
    return f"{key}-{file_name}"
