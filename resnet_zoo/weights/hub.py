"""From the Hugging Face Hub: a network as ``config.json`` and ``model.safetensors``.

huggingface_hub does the transfer, so its endpoint, tokens, cache and offline mode apply. It does not check what is in
its cache; that is done here at every load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    DownloadError,
    IntegrityError,
)
from resnet_zoo.weights.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.weights.hub_config import CONFIG_NAME, WEIGHTS_NAME, HubConfig
from resnet_zoo.weights.hub_files import HubFile, announced_hash, fetch_hub_file

_ADDRESS = re.compile(r"hf-hub:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class HubRepository:
    """A network on the Hub whose bytes were checked.

    Attributes:
        repository: ``owner/name``.
        revision: The commit.
        name: The row whose network it is.
        entry: That row, with the repository's number of classes.
        num_classes: Width of its classifier.
        in_channels: Image channels.
        class_names: Names of the classes in label order, ``None`` if the repository does not say.
        path: The weights in Hugging Face's cache.
        sha256: Of the weights.
        checkpoint: The weights.
    """

    repository: str
    revision: str
    name: str
    entry: Entry
    num_classes: int
    in_channels: int
    class_names: tuple[str, ...] | None
    path: Path
    sha256: str
    checkpoint: Checkpoint


def open_repository(address: str) -> HubRepository:
    """Fetch a network from the Hub, or find it in Hugging Face's cache, and check every byte of it.

    The configuration and the weights are of the same commit. Both are checked against the hash the Hub announced, the
    weights also against the one in the configuration. A damaged file is fetched again once.

    Args:
        address: ``hf-hub:owner/name``, or ``hf-hub:owner/name@revision``. A repository made by `push_to_hub`, or one of
            timm whose architecture is in the table (``resnet50``, ``resnet50d``).

    Raises:
        ArgumentError: The address has another form.
        DownloadError: There is no such repository, revision or file, the Hub refuses, or cannot be reached.
        IntegrityError: The weights do not have their hash, also when fetched again.
        CheckpointError: The configuration makes no sense, or the weights are no safetensors.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ArgumentError(f"Expected hf-hub:owner/name or hf-hub:owner/name@revision, got {address!r}.")
    repository, revision = match["repository"], match["revision"]
    path = _open_config(repository, revision)
    commit = path.parent.name
    config = HubConfig.read(path)
    weights = _open_weights(repository, commit, config.sha256)
    return HubRepository(
        repository=repository,
        revision=commit,
        name=config.entry.name,
        entry=dataclasses.replace(config.entry, num_classes=config.num_classes),
        num_classes=config.num_classes,
        in_channels=config.in_channels,
        class_names=config.class_names,
        path=weights.path,
        sha256=weights.sha256,
        checkpoint=weights,
    )


def _open_config(repository: str, revision: str | None) -> Path:
    """Return the configuration, as the Hub announced it; a damaged one is fetched again once."""
    path = fetch_hub_file(HubFile(repository, revision, CONFIG_NAME))
    file = HubFile(repository, path.parent.name, CONFIG_NAME)
    expected = _linked_hash(path) or announced_hash(file)
    try:
        _check_hash(path, expected)
    except CheckpointError:
        with contextlib.suppress(DownloadError):
            _check_hash(fetch_hub_file(file, again=True), expected)
            return path
        raise
    return path


def _open_weights(repository: str, commit: str, sha256: str | None) -> Checkpoint:
    """Load the weights with this sha256, or with the hash the Hub announced; damaged ones are fetched again once."""
    file = HubFile(repository, commit, WEIGHTS_NAME)
    path = fetch_hub_file(file)
    announced = _linked_hash(path) or sha256 or announced_hash(file)
    if sha256 and _is_sha256(announced) and announced != sha256:
        raise IntegrityError(file.address, sha256, announced)
    expected = sha256 or announced
    try:
        return _load(path, expected)
    except (IntegrityError, CheckpointError):
        with contextlib.suppress(DownloadError):
            return _load(fetch_hub_file(file, again=True), expected)
        raise


def _load(path: Path, expected: str) -> Checkpoint:
    if _is_sha256(expected):
        return load_checkpoint(path, sha256=expected)
    _check_hash(path, expected)
    return load_checkpoint(path)


def _linked_hash(path: Path) -> str | None:
    """Return the ETag under which a file came: sha256 of a large file, git's blob hash of another.

    It is the name of the blob that the cache's link leads to. The link is read, not followed: a blob may itself be a
    link into a store with names of another kind. ``None`` for a cache without links (Windows).
    """
    return path.readlink().name if path.is_symlink() else None


def _check_hash(path: Path, expected: str) -> None:
    """Check a file's bytes against its hash: a sha256, or git's."""
    data = path.read_bytes()
    actual = hashlib.sha256(data).hexdigest() if _is_sha256(expected) else git_blob_hash(data)
    if actual != expected:
        raise CheckpointError(path, f"expected the hash {expected}, got {actual}. Remove the file to fetch it again.")


def git_blob_hash(data: bytes) -> str:
    """Return the hash by which git, and so the Hub, knows a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _is_sha256(digest: str) -> bool:
    return len(digest) == 64
