"""From the Hugging Face Hub: a network as ``config.json`` and ``model.safetensors``.

huggingface_hub does the transfer, so its endpoint, tokens, cache and offline mode apply. It does not check what is in
its cache; that is done here at every load.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from resnet_zoo.base.files import read_regular
from resnet_zoo.base.strict_json import is_sha256
from resnet_zoo.catalog.names import HUB_PREFIX
from resnet_zoo.errors import ArgumentError, CheckpointError, DownloadError, IntegrityError
from resnet_zoo.weights.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.weights.fit import check_description
from resnet_zoo.weights.hub_config import CONFIG_NAME, WEIGHTS_NAME, HubConfig
from resnet_zoo.weights.hub_files import HubFile, announced_hash, fetch_hub_file
from resnet_zoo.weights.opened import LoadedWeights, OpenedNetwork
from resnet_zoo.weights.places import LocalWeights

_ADDRESS = re.compile(r"hf-hub:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")


_Read = TypeVar("_Read")


def open_repository(address: str) -> OpenedNetwork:
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
        CheckpointError: The configuration makes no sense, the weights have another number of classes or channels than
            it says, or are no safetensors.
        WeightsMismatchError: The weights are for another network.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ArgumentError(f"Expected hf-hub:owner/name or hf-hub:owner/name@revision, got {address!r}.")
    repository, revision = match["repository"], match["revision"]
    config, commit = _open_config(repository, revision)
    checkpoint = _open_weights(repository, commit, config.sha256)
    check_description(config.entry, config.in_channels, checkpoint)
    source = f"{HUB_PREFIX}{repository}@{commit}"
    local = LocalWeights(checkpoint.path, checkpoint.sha256, source, checkpoint.sha256, "hub")
    return OpenedNetwork(config.entry, config.in_channels, config.class_names, LoadedWeights(checkpoint, local))


def _open_config(repository: str, revision: str | None) -> tuple[HubConfig, str]:
    """Return the configuration, as the Hub announced it, and its commit."""
    path = fetch_hub_file(HubFile(repository, revision, CONFIG_NAME))
    commit = path.parent.name
    file = HubFile(repository, commit, CONFIG_NAME)
    expected = _linked_hash(path) or announced_hash(file)
    return HubConfig.read(_repaired(file, path, lambda path: _checked_bytes(path, expected)), path), commit


def _open_weights(repository: str, commit: str, sha256: str | None) -> Checkpoint:
    """Load the weights with this sha256, or with the hash the Hub announced."""
    file = HubFile(repository, commit, WEIGHTS_NAME)
    path = fetch_hub_file(file)
    announced = _linked_hash(path) or sha256 or announced_hash(file)
    if sha256 and is_sha256(announced) and announced != sha256:
        raise IntegrityError(file.address, sha256, announced)
    return _repaired(file, path, lambda path: _load(path, sha256 or announced))


def _repaired(file: HubFile, path: Path, read: Callable[[Path], _Read]) -> _Read:
    """Read a file of the client's cache; a damaged one is fetched again once."""
    try:
        return read(path)
    except (IntegrityError, CheckpointError):
        with contextlib.suppress(DownloadError):
            return read(fetch_hub_file(file, again=True))
        raise


def _load(path: Path, expected: str) -> Checkpoint:
    if is_sha256(expected):
        return load_checkpoint(path, sha256=expected)
    _checked_bytes(path, expected)
    return load_checkpoint(path)


def _linked_hash(path: Path) -> str | None:
    """Return the ETag under which a file came: sha256 of a large file, git's blob hash of another.

    It is the name of the blob that the cache's link leads to. The link is read, not followed: a blob may itself be a
    link into a store with names of another kind. ``None`` for a cache without links (Windows).
    """
    return path.readlink().name if path.is_symlink() else None


def _checked_bytes(path: Path, expected: str) -> bytes:
    """Return a file's bytes once they have its hash: a sha256, or git's."""
    data = read_regular(path)
    actual = hashlib.sha256(data).hexdigest() if is_sha256(expected) else git_blob_hash(data)
    if actual != expected:
        raise CheckpointError(path, f"expected the hash {expected}, got {actual}. Remove the file to fetch it again.")
    return data


def git_blob_hash(data: bytes) -> str:
    """Return the hash by which git, and so the Hub, knows a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
