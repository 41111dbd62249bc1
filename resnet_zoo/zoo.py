"""From a name to a network, with or without weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from resnet_zoo.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.download import weights_path
from resnet_zoo.errors import ArgumentError, UnknownWeightsError
from resnet_zoo.fit import build, build_on_meta, check_fit, shapes_of, with_counters
from resnet_zoo.manifest import get_entry
from resnet_zoo.records import Entry
from resnet_zoo.resnet import ResNet, initialise_classifier

_HEAD = ("fc.weight", "fc.bias")


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    device: torch.device | str | None = None,
) -> ResNet:
    """Return a row's network, in training mode as every ``nn.Module`` starts; call ``.eval()`` to use it.

    Args:
        name: A row or alias (`list_models`).
        pretrained: Load the row's default weights. Without ``weights`` and ``pretrained`` the values are fresh.
        weights: A tag of the row (``openmmlab``), or the path of a .safetensors or .pth file.
        num_classes: Another number of classes: the classifier is freshly initialised, every other tensor kept. A
            file whose classifier already has that many classes is loaded whole.
        in_channels: Another number of image channels: the first convolution is adapted (see `adapt_input`). A file
            whose first convolution already has that many channels is loaded whole.
        device: Where the network ends up: a torch device, or ``auto``.

    Raises:
        UnknownModelError: No row is called so.
        UnknownWeightsError: ``weights`` is neither a tag of the row nor a file.
        WeightsUnavailableError: The weights cannot be had. Random values never take their place.
        WeightsMismatchError: The file is for another network; lists the keys and names the rows it fits.
        IntegrityError, UnsafeCheckpointError, CheckpointError: As `load_checkpoint`.
        ArgumentError: ``num_classes`` or ``in_channels`` is not positive, or the device is not there.
    """
    entry = get_entry(name)
    target = None if device is None else resolve_device(device)
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value is not None and value < 1:
            raise ArgumentError(f"Expected a positive {argument}, got {value}.")
    if weights is None and pretrained:
        weights = entry.default_weights
    if weights is None:
        model = build(entry, num_classes=num_classes, in_channels=in_channels)
    else:
        checkpoint = open_weights(entry, weights)
        model = assign_weights(entry, checkpoint, num_classes=num_classes, in_channels=in_channels)
    return model if target is None else model.to(target)


def open_weights(entry: Entry, weights: str | os.PathLike[str]) -> Checkpoint:
    """Read the checkpoint that a tag or path stands for; a tag is preferred where both could be meant.

    Raises:
        UnknownWeightsError, WeightsUnavailableError, IntegrityError, UnsafeCheckpointError, CheckpointError: As
            `create_model`.
    """
    if isinstance(weights, str) and weights in entry.weights:
        file = entry.weights[weights].file
        return load_checkpoint(weights_path(entry, weights), sha256=file.sha256 if file else None)
    if not Path(weights).suffix and not Path(weights).exists():
        raise UnknownWeightsError(entry.name, str(weights), entry.weights)
    return load_checkpoint(weights)


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


def resolve_device(device: torch.device | str) -> torch.device:
    """Turn ``auto`` or a device's name into a device that is there.

    Raises:
        ArgumentError: It is no device, or not on this machine.
    """
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ArgumentError(
            f"The device {str(device)!r} is not there. Pass auto, cpu, or one of this machine's."
        ) from error
    return resolved


def _size(tensors: Mapping[str, Tensor], key: str, dim: int) -> int | None:
    tensor = tensors.get(key)
    return tensor.shape[dim] if tensor is not None and tensor.ndim > dim else None
