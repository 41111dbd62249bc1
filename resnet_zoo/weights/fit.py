"""Does a checkpoint fit a row, and which row does it fit?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError, CheckpointError, WeightsMismatchError
from resnet_zoo.network.building import (
    Shapes,
    build_on_meta,
    expected_shapes,
    image_channels,
    shapes_of,
    with_counters,
)
from resnet_zoo.weights.checkpoint import Checkpoint


def fitting_rows(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the rows whose state dict has exactly these keys and shapes, in table order."""
    shapes = shapes_of(with_counters(tensors))
    return [entry.name for entry in current_manifest().models if expected_shapes(entry) == shapes]


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
            raise CheckpointError(checkpoint.path, f"{key} is {tensors[key].dtype}, which is not a type for it.")


def check_description(entry: Entry, in_channels: int, checkpoint: Checkpoint) -> None:
    """Check weights against what a file or repository says of its network, before anything of that size is made.

    Args:
        entry: The row, with the number of classes that is said.
        in_channels: Image channels that are said.
        checkpoint: The weights.

    Raises:
        CheckpointError: They have another number of classes or channels.
        WeightsMismatchError: They are not those of the row's network.
    """
    shapes = shapes_of(checkpoint.tensors)
    stem = shapes.get("conv1.weight") or shapes.get("conv1.0.weight") or ()
    for what, said, found in (
        ("classes", entry.num_classes, shapes.get("fc.bias", ())[:1]),
        ("image channels", in_channels, stem[1:2]),
    ):
        if found and found[0] != said:
            why = f"it is said to be a network of {said} {what}, but its weights have {found[0]}. Do not use it."
            raise CheckpointError(checkpoint.path, why)
    if not (stem and shapes.get("fc.bias")):
        entry, in_channels = current_manifest().find(entry.name), 3  # it cannot fit; the error lists what is missing
    check_fit(entry.name, shapes_of(build_on_meta(entry, in_channels=in_channels).state_dict()), checkpoint)


def tensors_of(model: nn.Module, entry: Entry) -> tuple[dict[str, Tensor], int]:
    """Return the tensors of a row's network, with classes and channels of its own, on the CPU; and these channels.

    Raises:
        ArgumentError: Its classifier is not a linear layer, or it strides or dilates as the row's network does not.
        WeightsMismatchError: It is not the row's network.
        ArgumentError: It is not a network of this package, or its classifier is not a linear layer.
    """
    model = unwrapped(model)
    classifier = getattr(model, "fc", None)
    if not isinstance(classifier, nn.Linear):
        raise ArgumentError(
            "Expected a network of create_model whose classifier `fc` is a Linear, got "
            + (type(model).__name__ if classifier is None else f"a classifier of type {type(classifier).__name__}")
            + ". Assign its Linear to model.fc (dropout does nothing in eval mode), call model.reset_classifier, or "
            "save model.state_dict() with torch.save."
        )
    tensors = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    in_channels = image_channels(tensors)
    like = build_on_meta(entry, num_classes=classifier.out_features, in_channels=in_channels)
    check_fit(entry.name, shapes_of(like.state_dict()), Checkpoint(tensors, "resnet_zoo", Path("The model"), "", {}))
    ours, theirs = _geometry(like), _geometry(model)
    changed = next((name for name, module in ours.items() if theirs.get(name) != module), None)
    if changed is not None:
        raise ArgumentError(
            f"Expected {changed} as in {entry.name}, {ours[changed]}, got {theirs.get(changed)}: only tensors are "
            "saved, so what is loaded would compute something else. Undo the change (model.set_output_stride), or "
            "save model.state_dict() with torch.save."
        )
    return tensors, in_channels


def unwrapped(model: nn.Module) -> Any:
    """Return the network inside what torch wraps around one to compile, parallelise or average it."""
    for wrapper in ("module", "_orig_mod", "module"):
        model = getattr(model, wrapper, model)
    return model


def _geometry(model: nn.Module) -> dict[str, str]:
    """Return the kernel, stride, padding and dilation of every convolution and pool, as text."""
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    return {
        name: nn.AdaptiveAvgPool2d.__name__ if isinstance(module, nn.AdaptiveAvgPool2d) else repr(module)
        for name, module in modules.items()
    }  # an output size of 1 is also written (1, 1)


def nearest_row(tensors: Mapping[str, Tensor]) -> str:
    """Return the row that shares most keys and shapes, for an error that is short."""
    shapes = shapes_of(tensors).items()

    def likeness(entry: Entry) -> int:
        expected = expected_shapes(entry)
        return 2 * len(expected.items() & shapes) - len(expected)

    return max(current_manifest().models, key=likeness).name
