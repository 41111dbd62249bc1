"""From a row to its network, with fresh values or none, and the shapes that its state dict must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from resnet_zoo.catalog.architectures import ARCHITECTURES, Architecture
from resnet_zoo.catalog.manifest import manifest_path
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ManifestError
from resnet_zoo.network.resnet import ResNet

Shapes = dict[str, tuple[int, ...]]
"""Key and shape of every tensor."""


def build_on_meta(entry: Entry, *, num_classes: int | None = None, in_channels: int = 3) -> ResNet:
    """Return the row's network without values (meta tensors): for shapes, counts, and to be assigned weights."""
    with torch.device("meta"):
        return build(entry, num_classes=num_classes, in_channels=in_channels)


def build(entry: Entry, *, num_classes: int | None = None, in_channels: int = 3) -> ResNet:
    """Return the row's network with fresh values; its ``entry`` is the row with its own classes and channels.

    Raises:
        ManifestError: The row names an architecture that `ARCHITECTURES` lacks.
    """
    num_classes = entry.num_classes if num_classes is None else num_classes
    model = ResNet(architecture_of(entry), stem=entry.stem, num_classes=num_classes, in_channels=in_channels)
    model.entry = replace(entry, num_classes=num_classes, input_size=(in_channels, *entry.input_size[1:]))
    return model


def architecture_of(entry: Entry) -> Architecture:
    """Return the architecture that a row names.

    Raises:
        ManifestError: `ARCHITECTURES` lacks it.
    """
    if entry.architecture not in ARCHITECTURES:
        why = f"expected one of {', '.join(ARCHITECTURES)}, got {entry.architecture!r}"
        raise ManifestError(manifest_path(), entry.name, "architecture", why)
    return ARCHITECTURES[entry.architecture]


def expected_shapes(entry: Entry) -> Shapes:
    """Return key and shape of every tensor in a row's state dict."""
    key = (entry.architecture, entry.stem, entry.num_classes)
    if key not in _SHAPES:
        _SHAPES[key] = shapes_of(build_on_meta(entry).state_dict())
    return _SHAPES[key]


_SHAPES: dict[tuple[str, str, int], Shapes] = {}
"""What `expected_shapes` found so far."""


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return key and shape of every tensor."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def image_channels(tensors: Mapping[str, Tensor]) -> int:
    """Return how many image channels a state dict's first convolution takes; 3 if it has none of our networks."""
    weight = tensors.get("conv1.weight", tensors.get("conv1.0.weight"))
    return 3 if weight is None or weight.ndim != 4 else weight.shape[1]


def with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch counters (``num_batches_tracked``) that files older than PyTorch 0.4.1 lack."""
    full = dict(tensors)
    for key in tensors:
        if key.endswith(".running_var"):
            full.setdefault(key.replace("running_var", "num_batches_tracked"), torch.tensor(0, device="cpu"))
    return full
