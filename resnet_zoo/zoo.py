"""From a name to a network, with or without weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.base.progress import download_bar
from resnet_zoo.cache import quarantine
from resnet_zoo.catalog.manifest import get_entry, use_manifest
from resnet_zoo.catalog.names import kind_of
from resnet_zoo.catalog.records import Entry, is_tag
from resnet_zoo.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.convert import convert_checkpoint
from resnet_zoo.download import LocalWeights, Progress, cached_weights, obtain_weights, shipped_weights
from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    IntegrityError,
    UnknownWeightsError,
    WeightsUnavailableError,
    ZooError,
)
from resnet_zoo.fit import check_fit
from resnet_zoo.hub import open_repository
from resnet_zoo.network.building import architecture_of, build, build_on_meta, shapes_of, with_counters
from resnet_zoo.network.features import STAGES, FeatureExtractor, check_layers
from resnet_zoo.network.resnet import ResNet, initialise_classifier
from resnet_zoo.network_file import read_network

_LOG = logging.getLogger("resnet_zoo")

_HEAD = ("fc.weight", "fc.bias")


def create_model(
    name: str | os.PathLike[str],
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    device: torch.device | str | None = None,
    manifest: str | os.PathLike[str] | None = None,
) -> ResNet:
    """Return a row's network, in training mode as every ``nn.Module`` starts; call ``.eval()`` to use it.

    Args:
        name: A row or alias (`list_models`); or ``hf-hub:owner/name[@revision]`` for a network on the Hugging Face Hub,
            or the path of one that `save_network` wrote: these are always loaded with their weights, and keep their
            numbers of classes and (3 asked for) of channels.
        pretrained: Load the row's default weights. Without ``weights`` and ``pretrained`` the values are fresh.
        weights: A tag of the row (``openmmlab``), or the path of a .safetensors or .pth file.
        num_classes: Another number of classes: the classifier is freshly initialised, every other tensor kept. A
            file whose classifier already has that many classes is loaded whole.
        in_channels: Another number of image channels: the first convolution is adapted (see `adapt_input`). A file
            whose first convolution already has that many channels is loaded whole.
        device: Where the network ends up: a torch device, or ``auto``.
        manifest: The manifest file of a private zoo; ``None`` means the one in use (``RESNET_ZOO_MANIFEST``).

    Raises:
        UnknownModelError: No row is called so.
        UnknownWeightsError: ``weights`` is neither a tag of the row nor a file.
        WeightsUnavailableError: The weights cannot be had. Random values never take their place.
        DownloadError: Every source of the weights failed; lists what each said.
        WeightsMismatchError: The file is for another network; lists the keys and names the rows it fits.
        IntegrityError, UnsafeCheckpointError, CheckpointError: As `load_checkpoint`.
        ArgumentError: ``num_classes`` or ``in_channels`` is not positive, or the device is not there.
    """
    target = None if device is None else resolve_device(device)
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value is not None and value < 1:
            raise ArgumentError(f"Expected a positive {argument}, got {value}.")
    with use_manifest(manifest):
        if kind_of(name) != "row":
            model = _from_elsewhere(name, weights, num_classes=num_classes, in_channels=in_channels)
            return model if target is None else model.to(target)
        entry = get_entry(str(name))
        if weights is None and pretrained:
            weights = entry.default_weights
        if weights is None:
            model = build(entry, num_classes=num_classes, in_channels=in_channels)
        else:
            with download_bar() as progress:
                checkpoint = open_weights(entry, weights, progress=progress).checkpoint
            model = assign_weights(entry, checkpoint, num_classes=num_classes, in_channels=in_channels)
    return model if target is None else model.to(target)


def _from_elsewhere(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    *,
    num_classes: int | None,
    in_channels: int,
) -> ResNet:
    """Return the network of a repository or file, with its own numbers of classes and channels unless others are
    asked for."""
    if weights is not None:
        raise ArgumentError(f"{name} has its own weights. Leave out weights={str(weights)!r}, or name a row instead.")
    found = open_repository(str(name)) if kind_of(name) == "repository" else read_network(name)
    channels = found.in_channels if in_channels == 3 else in_channels
    return assign_weights(found.entry, found.checkpoint, num_classes=num_classes, in_channels=channels)


def open_weights(
    entry: Entry, weights: str | os.PathLike[str], *, download: bool = True, progress: Progress | None = None
) -> LoadedWeights:
    """Read the checkpoint that a tag or path stands for; a tag is preferred where both could be meant.

    A damaged file in the cache is put aside and fetched again.

    Args:
        entry: The row.
        weights: A tag or a path.
        download: Fetch a weight set that is not in the cache.
        progress: Called with (file name, bytes there, bytes in all or None) while bytes arrive.

    Raises:
        UnknownWeightsError, WeightsUnavailableError, DownloadError, IntegrityError, UnsafeCheckpointError,
            CheckpointError: As `create_model`.
    """
    if isinstance(weights, str) and weights in entry.weights:
        return _open_tag(entry, weights, download=download, progress=progress)
    if is_tag(weights):
        raise UnknownWeightsError(entry.name, str(weights), entry.weights)
    return LoadedWeights(load_checkpoint(weights), None)


@dataclass(frozen=True)
class LoadedWeights:
    """A checkpoint whose bytes were checked, and where its file comes from (``None``: a path was given)."""

    checkpoint: Checkpoint
    local: LocalWeights | None


def _open_tag(entry: Entry, tag: str, *, download: bool, progress: Progress | None) -> LoadedWeights:
    local = _local_weights(entry, tag, download=download, progress=progress)
    try:
        return LoadedWeights(load_checkpoint(local.path, sha256=local.sha256), local)
    except WeightsUnavailableError:
        if local.path.exists():
            raise
        note, is_damaged = "", False  # another process is repairing it
    except (IntegrityError, CheckpointError) as error:
        damage = error
        try:
            aside = quarantine(local.sha256)
        except OSError:
            raise damage from None
        note = f"It was put aside as {aside}." if aside else ""
        is_damaged = True
        if aside:
            _LOG.warning("%s The damaged file was put aside as %s; fetching it again.", damage, aside)
    try:
        local = _local_weights(entry, tag, download=download, anew=is_damaged, progress=progress)
    except ZooError as error:
        if note and isinstance(damage, IntegrityError):
            raise IntegrityError(damage.path, damage.expected, damage.actual, f"{note} {error}") from error
        if note:
            raise WeightsUnavailableError(entry.name, tag, f"{damage} {note} {error}") from error
        raise
    return LoadedWeights(load_checkpoint(local.path, sha256=local.sha256), local)


def _local_weights(
    entry: Entry, tag: str, *, download: bool, anew: bool = False, progress: Progress | None
) -> LocalWeights:
    if download:
        return obtain_weights(entry, tag, partial(_convert, entry), anew=anew, progress=progress)
    local = cached_weights(entry, tag) or shipped_weights(entry, tag)
    if local is None:
        raise WeightsUnavailableError(
            entry.name, tag, f"not in the cache. `resnet-zoo download {entry.name}` fetches it."
        )
    return local


def _convert(entry: Entry, source: Path, target: Path, sha256: str) -> None:
    convert_checkpoint(source, target, name=entry.name, sha256=sha256)


def assign_weights(
    entry: Entry, checkpoint: Checkpoint, *, num_classes: int | None = None, in_channels: int = 3
) -> ResNet:
    """Return the row's network holding a checkpoint's tensors (not copied where they can be used as they are).

    Raises:
        WeightsMismatchError: The checkpoint does not fit.
        CheckpointError: A tensor has a type it cannot have.
    """
    model = build_on_meta(entry, num_classes=num_classes, in_channels=in_channels)
    tensors = with_counters(checkpoint.tensors)
    stem = "conv1.weight" if "conv1.weight" in tensors else "conv1.0.weight"
    has_own_head = num_classes is not None and _size(tensors, "fc.bias", 0) == num_classes
    has_own_stem = in_channels != 3 and _size(tensors, stem, 1) == in_channels
    stored = build_on_meta(
        entry, num_classes=num_classes if has_own_head else None, in_channels=in_channels if has_own_stem else 3
    )
    check_fit(entry.name, shapes_of(stored.state_dict()), checkpoint)
    if in_channels != 3 and not has_own_stem:
        tensors[stem] = adapt_input(tensors[stem], in_channels)
    if num_classes not in (None, entry.num_classes) and not has_own_head:
        fresh = torch.nn.Linear(tensors["fc.weight"].shape[1], model.fc.out_features)
        initialise_classifier(fresh)
        tensors |= dict(zip(_HEAD, (fresh.weight.detach(), fresh.bias.detach()), strict=True))
    tensors |= {key: _aligned(tensors[key]) for key in _HEAD}
    model.load_state_dict(tensors, assign=True)
    return model


def adapt_input(weight: Tensor, in_channels: int) -> Tensor:
    """Return a first-convolution weight (C_out, in_channels, h, w) made from an RGB one (C_out, 3, h, w).

    One channel: the sum over RGB, so that a grey image counts as its three equal channels. Any other number: RGB
    repeated in turn and scaled by 3 / in_channels, so that activations keep their size (timm's rule).
    """
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // 3)
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (3 / in_channels)


def _aligned(tensor: Tensor) -> Tensor:
    """Copy a tensor that a file's mapping put at an odd place in memory.

    The last bit of a matrix product depends on it; convolutions do not. With 64 bytes the logits are those of a network
    whose tensors were allocated one by one, as upstream's are.
    """
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def _size(tensors: Mapping[str, Tensor], key: str, dim: int) -> int | None:
    tensor = tensors.get(key)
    return tensor.shape[dim] if tensor is not None and tensor.ndim > dim else None


def create_feature_extractor(
    name: str | os.PathLike[str],
    *,
    layers: Sequence[str] = STAGES,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    in_channels: int = 3,
    device: torch.device | str | None = None,
    manifest: str | os.PathLike[str] | None = None,
) -> FeatureExtractor:
    """Return the part of a network that computes some layers, in training mode like any new module.

    Args:
        name: A row or alias, ``hf-hub:owner/name``, or the path of a network file, as `create_model`.
        layers: The layers to return, in any order (a table is in the module's docstring): ``stem.relu``, ``stem``,
            ``stage1`` to ``stage4``, a block as ``stage3.5``, ``pool``, ``logits``.
        pretrained: Load the row's default weights.
        weights: A tag of the row, or the path of a weights file, as `create_model`.
        in_channels: Another number of image channels, as `create_model`.
        device: Where it ends up: a torch device, or ``auto``.
        manifest: The manifest file of a private zoo, as `create_model`.

    Raises:
        UnknownLayerError: The network has no layer of that name.
        ArgumentError: ``layers`` is empty, names one twice, or is no sequence of names; or as `create_model`.
        ZooError: Everything else that `create_model` raises.
    """
    with use_manifest(manifest):
        if kind_of(name) == "row":  # before anything is fetched
            check_layers(layers, architecture_of(get_entry(str(name))).depths)
        model = create_model(name, pretrained=pretrained, weights=weights, in_channels=in_channels, device=device)
    return FeatureExtractor(model, layers=layers)
