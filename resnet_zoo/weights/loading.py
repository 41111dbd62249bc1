"""From a tag or a path to a checkpoint whose every byte was checked, and from that to a network that holds it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from resnet_zoo.base.progress import TitledProgress
from resnet_zoo.catalog.records import Entry, is_tag
from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    IntegrityError,
    UnknownWeightsError,
    WeightsUnavailableError,
    ZooError,
)
from resnet_zoo.network.building import build_on_meta, shapes_of, with_counters
from resnet_zoo.network.resnet import ResNet, initialise_classifier
from resnet_zoo.weights.cache import object_path, quarantine
from resnet_zoo.weights.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.weights.convert import convert_checkpoint
from resnet_zoo.weights.download import next_step, obtain_weights
from resnet_zoo.weights.fit import check_fit
from resnet_zoo.weights.opened import LoadedWeights
from resnet_zoo.weights.places import LocalWeights, weights_here

_LOG = logging.getLogger("resnet_zoo")

_HEAD = ("fc.weight", "fc.bias")


def open_weights(
    entry: Entry,
    weights: str | os.PathLike[str],
    *,
    weights_key: str | None = None,
    download: bool = True,
    progress: TitledProgress | None = None,
) -> LoadedWeights:
    """Read the checkpoint that a tag or path stands for; a tag is preferred where both could be meant.

    A damaged file in the cache is put aside and fetched again.

    Args:
        entry: The row.
        weights: A tag or a path.
        weights_key: The key under which a file has its weights, as in `load_checkpoint`.
        download: Fetch a weight set that is not in the cache.
        progress: Called with (file name, bytes there, bytes in all, 0 if unknown) while bytes arrive.

    Raises:
        ArgumentError: The file has no weights under ``weights_key``, or a tag was given.
        UnknownWeightsError, WeightsUnavailableError, DownloadError, IntegrityError, UnsafeCheckpointError,
            CheckpointError: As `create_model`.
    """
    if isinstance(weights, str) and weights in entry.weights:
        if weights_key is not None:
            raise ArgumentError(f"{weights_key!r} is for weights of a file, and {weights} is a tag. Leave it out.")
        return _open_tag(entry, weights, download=download, progress=progress)
    if is_tag(weights):
        raise UnknownWeightsError(entry.name, str(weights), entry.weights)
    return LoadedWeights(load_checkpoint(weights, weights_key=weights_key), None)


def _open_tag(entry: Entry, tag: str, *, download: bool, progress: TitledProgress | None) -> LoadedWeights:
    local = _local_weights(entry, tag, download=download, progress=progress)
    try:
        return LoadedWeights(load_checkpoint(local.path, sha256=local.sha256), local)
    except WeightsUnavailableError:
        if local.path.exists():
            raise
        damage, note = None, ""  # another process is repairing it
    except (IntegrityError, CheckpointError) as error:
        note = _put_aside(local, error)
        damage = error.with_traceback(None)  # which, kept in this frame, would keep the file's bytes
    try:
        damaged = None if damage is None or not local.path.exists() else local.path
        local = _local_weights(entry, tag, download=download, damaged=damaged, progress=progress)
    except ZooError as error:
        if isinstance(damage, IntegrityError):
            raise IntegrityError(damage.path, damage.expected, damage.actual, f"{note}{error}") from error
        if damage is not None:
            raise WeightsUnavailableError(entry.name, tag, f"{damage} {note}{error}") from error
        raise
    return LoadedWeights(load_checkpoint(local.path, sha256=local.sha256), local)


def _put_aside(local: LocalWeights, damage: ZooError) -> str:
    """Move a damaged file of our cache away and say where it is; one that lies elsewhere stays where it is."""
    try:
        aside = quarantine(local.sha256) if local.path == object_path(local.sha256) else None
    except OSError:
        raise damage from None
    if aside is None:
        return ""
    _LOG.warning("%s The damaged file was put aside as %s; fetching it again.", damage, aside)
    return f"It was put aside as {aside}. "


def _local_weights(
    entry: Entry, tag: str, *, download: bool, damaged: Path | None = None, progress: TitledProgress | None
) -> LocalWeights:
    if download:
        return obtain_weights(
            entry,
            tag,
            lambda source, target, sha256: convert_checkpoint(source, target, name=entry.name, sha256=sha256),
            damaged=damaged,
            progress=progress,
        )
    local = weights_here(entry, tag, damaged=damaged)
    if local is None:
        fetch = f"`resnet-zoo download {entry.name} --weights {tag}` fetches them"
        raise WeightsUnavailableError(entry.name, tag, f"not on this machine. {fetch}. {next_step(entry, tag)}")
    return local


def assign_weights(
    entry: Entry,
    checkpoint: Checkpoint,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    into: ResNet | None = None,
) -> ResNet:
    """Return the row's network holding a checkpoint's tensors (not copied where they can be used as they are).

    Args:
        entry: The row.
        checkpoint: The tensors.
        num_classes: Another number of classes, as in `create_model`.
        in_channels: Another number of image channels, as in `create_model`.
        into: The network without values, if it was built already.

    Raises:
        WeightsMismatchError: The checkpoint does not fit.
        CheckpointError: A tensor has a type it cannot have.
    """
    model = into or build_on_meta(entry, num_classes=num_classes, in_channels=in_channels)
    tensors, shapes = with_counters(checkpoint.tensors), shapes_of(model.state_dict())
    stem = "conv1.weight" if "conv1.weight" in shapes else "conv1.0.weight"
    classes = model.num_classes
    adapts_head = classes not in (0, entry.num_classes) and _size(tensors, "fc.bias", 0) != num_classes
    if not classes:  # whatever classifier the file has is not needed
        shapes |= {key: tuple(tensors[key].shape) for key in _HEAD if key in tensors}
    adapts_stem = in_channels != 3 and _size(tensors, stem, 1) != in_channels
    if adapts_head:
        shapes |= {"fc.weight": (entry.num_classes, model.num_features), "fc.bias": (entry.num_classes,)}
    if adapts_stem:
        shapes[stem] = (shapes[stem][0], 3, *shapes[stem][2:])
    check_fit(entry.name, shapes, checkpoint)
    if adapts_stem:
        tensors[stem] = adapt_input(tensors[stem], in_channels)
    if adapts_head:
        features = tensors["fc.weight"].shape[1]  # dtype and device as the other tensors have
        fresh = torch.nn.Linear(features, classes, dtype=torch.float32, device="cpu")
        initialise_classifier(fresh)
        tensors |= dict(zip(_HEAD, (fresh.weight.detach(), fresh.bias.detach()), strict=True))
    if not classes:
        tensors = {key: tensor for key, tensor in tensors.items() if key not in _HEAD}
    tensors |= {key: _aligned(tensors[key]) for key in _HEAD if key in tensors}
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
    """Copy a tensor that lies at an odd place in memory.

    The last bit of a matrix product depends on it; convolutions do not. With 64 bytes the logits are those of a network
    whose tensors were allocated one by one, as upstream's are.
    """
    return tensor if tensor.data_ptr() % 64 == 0 else tensor.clone()


def _size(tensors: Mapping[str, Tensor], key: str, dim: int) -> int | None:
    tensor = tensors.get(key)
    return tensor.shape[dim] if tensor is not None and tensor.ndim > dim else None
