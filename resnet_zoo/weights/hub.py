"""From and to the Hugging Face Hub: a network as ``config.json``, ``model.safetensors`` and a card.

huggingface_hub does the transfer, so its endpoint, tokens, cache and offline mode apply. It does not check what is in
its cache; that is done here at every load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_zoo.base.machine import is_offline
from resnet_zoo.catalog.classes import class_names as names_of_classes
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, used_with
from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    DownloadError,
    IntegrityError,
    PublishError,
    ZooError,
)
from resnet_zoo.network.building import build_on_meta, image_channels, shapes_of
from resnet_zoo.weights.cards import model_card
from resnet_zoo.weights.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.weights.convert import safetensors_bytes
from resnet_zoo.weights.fit import check_fit
from resnet_zoo.weights.hub_config import HubConfig, config_content
from resnet_zoo.weights.hub_files import HubFile, announced_hash, fetch_hub_file, reason

if TYPE_CHECKING:
    from resnet_zoo.network.resnet import ResNet

CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "config.json", "model.safetensors", "README.md"

_ADDRESS = re.compile(r"hf-hub:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


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
        IntegrityError: The weights do not have their hash, also when fetched anew.
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


def push_to_hub(
    model: ResNet,
    repository: str,
    *,
    name: str,
    weights: str | None = None,
    private: bool = False,
    commit_message: str = "Add model",
    token: str | None = None,
    class_names: Sequence[str] | None = None,
) -> str:
    """Write a network to the Hub in one commit: configuration, weights and card, in the layout timm expects.

    Equal weights give equal bytes, and nothing is committed where everything is there already.

    Args:
        model: A network of this package, with any number of classes and channels.
        repository: ``owner/name``; made if it is not there.
        name: The row (or alias) whose network it is.
        weights: The weight set of the row whose values it has, if it does: its preprocessing and licence go with them.
        private: Make a new repository private.
        commit_message: Of the commit.
        token: Access token; ``None`` means the one huggingface_hub finds (``HF_TOKEN``, or a login).
        class_names: Names of the classes, in label order; ``None`` means those of the row, if the number is the same.

    Returns:
        The address of the commit.

    Raises:
        ArgumentError: ``repository`` has another form, or the number of names is not that of the classes.
        UnknownModelError: No row is called ``name``.
        UnknownWeightsError: The row has no weight set ``weights``.
        WeightsMismatchError: The model is not the row's network.
        PublishError: The Hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi

    check_repository_name(repository)
    entry = get_entry(name)
    tag = entry.default_weights if weights is None else weights
    licence, entry = entry.weight_set(tag).license, used_with(entry, weights)
    files = _files_of(model, entry, repository, class_names, licence)
    with hub_errors_as_publish_errors(repository):
        api = HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        return str(commit_files(api, repository, files, commit_message).commit_url)


def commit_files(api: Any, repository: str, files: Mapping[str, bytes | Path], message: str) -> Any:
    """Write files to a repository in one commit, and return what the client says of it."""
    from huggingface_hub import CommitOperationAdd

    added = [
        CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(file) if isinstance(file, Path) else file)
        for path, file in files.items()
    ]
    return api.create_commit(repository, added, commit_message=message)


def check_repository_name(repository: str) -> None:
    """Check that a name has the form ``owner/name``.

    Raises:
        ArgumentError: It has not.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ArgumentError(f"Expected a repository as owner/name, got {repository!r}.")


@contextlib.contextmanager
def hub_errors_as_publish_errors(repository: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises into a `PublishError`; refuse at once where the network is off limits."""
    if is_offline():
        raise PublishError(repository, "offline mode is on. Unset RESNET_ZOO_OFFLINE and HF_HUB_OFFLINE.")
    try:
        yield
    except ZooError:
        raise
    except Exception as error:  # the client raises errors of a dozen families, and bare ones
        raise PublishError(repository, reason(error)) from error


# --- reading ------------------------------------------------------------------------------------------------------


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


# --- writing ------------------------------------------------------------------------------------------------------


def _files_of(
    model: ResNet, entry: Entry, repository: str, class_names: Sequence[str] | None, licence: str
) -> dict[str, bytes | Path]:
    """Return the files of a network by their name in the repository."""
    tensors = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    num_classes, in_channels = model.fc.out_features, image_channels(tensors)
    expected = shapes_of(build_on_meta(entry, num_classes=num_classes, in_channels=in_channels).state_dict())
    check_fit(entry.name, expected, Checkpoint(tensors, "resnet_zoo", Path("the model"), "", {}))
    if class_names is None and num_classes == entry.num_classes:
        class_names = names_of_classes(entry.classes)
    if class_names is not None and len(class_names) != num_classes:
        raise ArgumentError(f"Expected {num_classes} class names, got {len(class_names)}.")
    weights = safetensors_bytes(tensors, {"format": "pt", "model": entry.name})
    sha256 = hashlib.sha256(weights).hexdigest()
    config = config_content(entry, model.fc, in_channels, class_names, sha256)
    return {
        CONFIG_NAME: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
        WEIGHTS_NAME: weights,
        CARD_NAME: model_card(entry, repository, num_classes=num_classes, sha256=sha256, licence=licence).encode(),
    }
