"""Whole hashes and sizes of upstream checkpoints, from what was fetched into the manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from resnet_zoo.base.files import is_reachable_file
from resnet_zoo.catalog.manifest import (
    manifest_path,
    parse_manifest,
    read_manifest,
    replace_manifest,
    writable_manifest_path,
)
from resnet_zoo.catalog.records import Entry, Manifest, UpstreamOrigin, Witness, to_json
from resnet_zoo.errors import ArgumentError, IntegrityError
from resnet_zoo.weights.cache import Pin, object_path
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.places import fetched_upstream


@dataclass(frozen=True)
class PinnedSet:
    """One weight set whose upstream checkpoint was fetched.

    Attributes:
        name: The row.
        tag: The weight set.
        sha256: Of the checkpoint, all 64 digits.
        size_bytes: Of the checkpoint.
        is_new: The manifest knew fewer digits, or no size, before.
    """

    name: str
    tag: str
    sha256: str
    size_bytes: int
    is_new: bool


@dataclass(frozen=True)
class Pinning:
    """What `pin_fetched` did, or would do.

    Attributes:
        manifest: The manifest file.
        manifest_changed: It was written, or would be.
        sets: The weight sets that were fetched.
        not_fetched: Those that were not, as ``row/tag``.
    """

    manifest: Path
    manifest_changed: bool
    sets: tuple[PinnedSet, ...]
    not_fetched: tuple[str, ...]


def pin_fetched(names: Sequence[str], *, dry_run: bool = False) -> Pinning:
    """Write whole hashes and sizes of upstream checkpoints into the manifest in use, as they were when fetched.

    Only what is in the cache: nothing is fetched, and nothing uploaded. The converted file is hashed again, and must
    itself name the checkpoint that the cache's record speaks of. What the manifest knows already stays as it is.

    Args:
        names: Rows or aliases; none means all.
        dry_run: Check and compare; do not write.

    Raises:
        UnknownModelError: No row has this name.
        IntegrityError, CheckpointError: A file or record of the cache is damaged, or they contradict each other.
        ManifestError: The manifest is broken.
        ArgumentError: The manifest is an installed package's, or was changed meanwhile; or a file came from a mirror,
            and only a part of its hash was known.
        OSError: The manifest cannot be written.
    """
    path = manifest_path() if dry_run else writable_manifest_path()
    manifest, before = read_manifest(path), path.read_bytes()
    content, sets, not_fetched = json.loads(before), [], []
    rows = {row["name"]: row for row in content["models"]}
    for entry in chosen_rows(manifest, names):
        for tag, weights in entry.weights.items():
            if not isinstance(weights.origin, UpstreamOrigin):
                continue
            pin = fetched_upstream(entry, tag)
            if pin is None or not is_reachable_file(object_path(pin.object_sha256)):
                not_fetched.append(f"{entry.name}/{tag}")
                continue
            is_new = weights.origin.witness is None or weights.origin.witness.size_bytes is None
            if is_new:
                rows[entry.name]["weights"][tag]["origin"] = to_json(_pinned(weights.origin, pin))
            sets.append(PinnedSet(entry.name, tag, pin.sha256, pin.size_bytes, is_new))
    changed = content != json.loads(before)
    if changed and not dry_run:
        parse_manifest(path, content)
        replace_manifest(path, content, before)
    return Pinning(path, changed, tuple(sets), tuple(not_fetched))


def _pinned(origin: UpstreamOrigin, pin: Pin) -> UpstreamOrigin:
    """Return an origin with the whole hash of what was fetched, once the converted file confirms it."""
    checkpoint = load_checkpoint(object_path(pin.object_sha256), sha256=pin.object_sha256)
    named = checkpoint.header.get("source_sha256", "")
    if named != pin.sha256:
        raise IntegrityError(f"{origin.shown_url} (as pinned in the cache)", named, pin.sha256)
    if origin.sha256_prefix != pin.sha256 and pin.url != origin.shown_url:
        raise ArgumentError(
            f"{origin.shown_url} was fetched from {pin.url} instead, and only the {len(origin.sha256_prefix)} digits "
            "in its name vouch for that. Remove it (`resnet-zoo cache rm`), and fetch it without --mirror."
        )
    return UpstreamOrigin(origin.url, pin.sha256, witness_of(origin, pin))


def witness_of(origin: UpstreamOrigin, pin: Pin) -> Witness:
    """Return who saw a checkpoint; who vouched for its whole hash before stays."""
    if origin.witness is not None:
        return replace(origin.witness, size_bytes=pin.size_bytes)
    place = "its address" if pin.url == origin.shown_url else "a mirror"
    return Witness(pin.size_bytes, pin.date, f"fetched from {place}")


def chosen_rows(manifest: Manifest, names: Sequence[str]) -> list[Entry]:
    """Return the rows of these names, each once; all, if there are none."""
    return list({entry.name: entry for entry in map(manifest.find, names)}.values()) or list(manifest.models)
