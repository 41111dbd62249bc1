"""To the Hugging Face Hub: a network as ``config.json``, ``model.safetensors`` and a card, in one commit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from resnet_zoo.base.machine import is_offline
from resnet_zoo.catalog.classes import class_names as list_of_classes
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, used_with
from resnet_zoo.errors import ArgumentError, PublishError, ZooError
from resnet_zoo.weights.cards import model_card
from resnet_zoo.weights.convert import safetensors_bytes
from resnet_zoo.weights.fit import tensors_of, unwrapped
from resnet_zoo.weights.hub_config import CONFIG_NAME, WEIGHTS_NAME, config_content
from resnet_zoo.weights.hub_files import reason
from resnet_zoo.weights.loading import assign_weights
from resnet_zoo.weights.network_file import read_network
from resnet_zoo.weights.network_header import RecordedAccuracy
from resnet_zoo.weights.opened import OpenedNetwork

CARD_NAME = "README.md"

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def push_to_hub(
    model: nn.Module | str | os.PathLike[str],
    repository: str,
    *,
    name: str | None = None,
    weights: str | None = None,
    private: bool = False,
    commit_message: str = "Add model",
    token: str | None = None,
    class_names: Sequence[str] | None = None,
) -> str:
    """Push a network to the Hub in one commit: configuration, weights and card, in the layout timm expects.

    Equal weights give equal bytes, and nothing is committed if the repository already holds them.

    Args:
        model: A network of this package, with any number of classes and channels, also as torch wraps it; or the path
            of a file that ``finetune`` or `save_network` wrote, whose classes, preprocessing and recorded accuracy are
            published with it.
        repository: ``owner/name``; created if it does not exist.
        name: The model of the zoo (or alias) whose network it is; a file says that itself.
        weights: The weight set of ``name`` whose values the network has, if any: its preprocessing and licence are
            published with them.
        private: Make a new repository private.
        commit_message: Of the commit.
        token: Access token; ``None`` means the one huggingface_hub finds (``HF_TOKEN``, or a login).
        class_names: Names of the classes, in label order; ``None`` means those of ``name``, if there are as many.

    Returns:
        The address of the commit.

    Raises:
        ArgumentError: ``repository`` is not of the form ``owner/name``, the model's ``fc`` is not a ``Linear`` or its
            strides were changed, there is not one name per class, a model comes without ``name``, or a file with
            ``name``, ``weights`` or ``class_names``.
        WeightsUnavailableError, CheckpointError: The file does not exist, or is not a network's.
        UnknownModelError: No model of the zoo is named ``name``.
        UnknownWeightsError: ``name`` has no weight set ``weights``.
        WeightsMismatchError: ``model`` is not the network of ``name``.
        PublishError: The Hub refused or is unreachable, or offline mode is on.

    Example:
        >>> model = resnet_zoo.create_model("resnet18_cifar10", pretrained=True)
        >>> address = resnet_zoo.push_to_hub(model, "your-name/resnet18", name="resnet18_cifar10")
        >>> resnet_zoo.create_model("hf-hub:your-name/resnet18").fc.out_features
        10
    """
    from huggingface_hub import HfApi

    check_repository_name(repository)
    if isinstance(model, nn.Module):
        if name is None:
            raise ArgumentError("Expected name=, the row whose network the model is, got none.")
        entry = get_entry(name)
        licence = entry.weight_set(str(entry.chosen(weights))).license
        entry = entry if weights is None else used_with(entry, entry.chosen(weights))
        files = _files_of(model, entry, repository, class_names, licence)
    else:
        if (name, weights, class_names) != (None, None, None):
            raise ArgumentError("A network file says its row and classes itself: leave out name, weights, class_names.")
        files = _files_of_file(read_network(model), repository)
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
    except Exception as error:  # noqa: BLE001  # the client raises errors of a dozen families, and bare ones
        raise PublishError(repository, reason(error)) from None  # theirs quote addresses with what signs them


def _files_of_file(network: OpenedNetwork, repository: str) -> dict[str, bytes | Path]:
    """Return the files of a network file, which keeps its header, and with it the accuracy that it records."""
    entry, checkpoint = network.entry, network.weights.checkpoint
    model = assign_weights(entry, checkpoint, in_channels=network.in_channels)
    recorded = RecordedAccuracy.of(checkpoint)
    licence = get_entry(entry.name).weight_set(entry.default_weights).license
    return _files_of(model, entry, repository, network.class_names, licence, checkpoint.header, recorded)


def _files_of(
    model: nn.Module,
    entry: Entry,
    repository: str,
    class_names: Sequence[str] | None,
    licence: str,
    header: Mapping[str, str] | None = None,
    recorded: RecordedAccuracy | None = None,
) -> dict[str, bytes | Path]:
    """Return the files of a network by their name in the repository."""
    tensors, in_channels = tensors_of(model, entry)
    classifier = unwrapped(model).fc
    num_classes = classifier.out_features
    if class_names is None and num_classes == entry.num_classes:
        class_names = list_of_classes(entry.classes)
    if class_names is not None and len(class_names) != num_classes:
        raise ArgumentError(f"Expected {num_classes} class names, got {len(class_names)}.")
    weights = safetensors_bytes(tensors, header or {"format": "pt", "model": entry.name})
    sha256 = hashlib.sha256(weights).hexdigest()
    config = config_content(entry, classifier, in_channels, class_names, sha256)
    return {
        CONFIG_NAME: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
        WEIGHTS_NAME: weights,
        CARD_NAME: model_card(
            entry,
            repository,
            num_classes=num_classes,
            class_names=class_names,
            sha256=sha256,
            licence=licence,
            recorded=recorded,
        ).encode(),
    }
