"""Does a checkpoint fit a row, and which row does it fit?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from resnet_zoo.catalog.manifest import current_manifest, manifest_path
from resnet_zoo.catalog.records import Entry
from resnet_zoo.checkpoint import Checkpoint
from resnet_zoo.errors import CheckpointError, ManifestError, WeightsMismatchError
from resnet_zoo.resnet import ARCHITECTURES, Architecture, ResNet

Shapes = dict[str, tuple[int, ...]]


def build_on_meta(entry: Entry, *, num_classes: int | None = None, in_channels: int = 3) -> ResNet:
    """Return the row's network without values (meta tensors): for shapes, counts, and to be assigned weights."""
    with torch.device("meta"):
        return build(entry, num_classes=num_classes, in_channels=in_channels)


def build(entry: Entry, *, num_classes: int | None = None, in_channels: int = 3) -> ResNet:
    """Return the row's network with fresh values.

    Raises:
        ManifestError: The row names an architecture that `ARCHITECTURES` lacks.
    """
    return ResNet(
        architecture_of(entry),
        stem=entry.stem,
        num_classes=entry.num_classes if num_classes is None else num_classes,
        in_channels=in_channels,
    )


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


def fitting_rows(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the rows whose state dict has exactly these keys and shapes, in table order."""
    shapes = shapes_of(with_counters(tensors))
    return [entry.name for entry in current_manifest().models if expected_shapes(entry) == shapes]


def with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch counters (``num_batches_tracked``) that files older than PyTorch 0.4.1 lack."""
    full = dict(tensors)
    for key in tensors:
        if key.endswith(".running_var"):
            full.setdefault(key.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return full


def image_channels(tensors: Mapping[str, Tensor]) -> int:
    """Return how many image channels a state dict's first convolution takes."""
    weight = tensors["conv1.weight"] if "conv1.weight" in tensors else tensors["conv1.0.weight"]
    return weight.shape[1]


def check_fit(name: str, shapes: Shapes, checkpoint: Checkpoint) -> None:
    """Check that a checkpoint has exactly the tensors a network needs.

    Args:
        name: What the network is called in the error.
        shapes: Key and shape of every tensor the network needs.
        checkpoint: The checkpoint, under our keys.

    Raises:
        WeightsMismatchError: Lists missing, unexpected and misshapen keys, and the rows the file does fit.
    """
    tensors = with_counters(checkpoint.tensors)
    missing = [key for key in shapes if key not in tensors]
    unexpected = [key for key in tensors if key not in shapes]
    wrong = {
        key: (shape, tuple(tensors[key].shape))
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    }
    if missing or unexpected or wrong:
        raise WeightsMismatchError(name, str(checkpoint.path), missing, unexpected, wrong, fitting_rows(tensors))
    for key in shapes:
        if tensors[key].is_floating_point() == key.endswith("num_batches_tracked"):
            raise CheckpointError(checkpoint.path, f"{key} is {tensors[key].dtype}, which it cannot be.")


def nearest_row(tensors: Mapping[str, Tensor]) -> str:
    """Return the row that shares most keys and shapes, for an error that is short."""
    shapes = shapes_of(tensors).items()

    def likeness(entry: Entry) -> int:
        expected = expected_shapes(entry)
        return 2 * len(expected.items() & shapes) - len(expected)

    return max(current_manifest().models, key=likeness).name
