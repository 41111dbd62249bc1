"""Networks as single files: safetensors whose header says the row, the class names and the preprocessing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from resnet_zoo.base.files import check_target, sha256_of, write_atomically
from resnet_zoo.base.strict_json import WrongValueError
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Preprocess
from resnet_zoo.errors import ArgumentError
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.convert import safetensors_bytes
from resnet_zoo.weights.fit import tensors_of
from resnet_zoo.weights.network_header import FIELDS, TENSORS, NetworkHeader
from resnet_zoo.weights.opened import OpenedNetwork, opened_network
from resnet_zoo.weights.provenance import tensors_sha256


def save_network(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    row: str,
    class_names: Sequence[str],
    preprocess: Preprocess | None = None,
    input_size: Sequence[int] | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> str:
    """Write a network to a file that `create_model`, `predict`, `embed` and others take in place of a name.

    The same network gives the same bytes, and the file is moved into place when it is complete.

    Args:
        path: The file to write; ends in ``.safetensors``.
        model: A network of this package, also as ``torch.compile`` or ``DistributedDataParallel`` wrap it.
        row: The model of the zoo (or alias) whose network it is.
        class_names: One per class of the network, in label order.
        preprocess: How images are prepared; ``None`` means as for that model.
        input_size: (C, H, W); ``None`` means the network's channels, and that model's height and width.
        metadata: More texts for the header, such as where the network comes from.
        overwrite: Replace a file that exists.

    Returns:
        The file's sha256.

    Raises:
        ArgumentError: The path has another suffix, is a folder or exists; the model's ``fc`` is not a ``Linear``, or
            its strides were changed; there is not one name per class; or `read_network` would refuse a name, the size,
            the preprocessing or the metadata.
        UnknownModelError: No model of the zoo is named ``row``.
        WeightsMismatchError: ``model`` is not the network of ``row``.
        OSError: The file cannot be written; nothing is left behind.

    Example:
        >>> model = resnet_zoo.create_model("resnet18_cifar10", num_classes=2)
        >>> sha256 = resnet_zoo.save_network("ab.safetensors", model, row="resnet18_cifar10", class_names=["a", "b"])
        >>> resnet_zoo.open_network("ab.safetensors").class_names
        ('a', 'b')
    """
    path = Path(path)
    check_target(path, (".safetensors",), overwrite=overwrite)
    entry = get_entry(row)
    tensors, in_channels = tensors_of(model, entry)
    num_classes = len(tensors["fc.weight"])
    if len(class_names) != num_classes:
        expected = f"{num_classes} class names, one per class of the model"
        raise ArgumentError(f"Expected {expected}; got {len(class_names)}.")
    size = (in_channels, *entry.input_size[1:]) if input_size is None else tuple(input_size)
    header = NetworkHeader(entry.name, tuple(class_names), preprocess or entry.preprocess, size)
    texts = _checked_texts(header, in_channels, metadata or {})
    widened = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    data = safetensors_bytes(tensors, {**texts, TENSORS: tensors_sha256(widened)})  # as they will be loaded
    write_atomically(path, lambda part: part.write_bytes(data))
    return sha256_of(path)


def _checked_texts(header: NetworkHeader, in_channels: int, metadata: Mapping[str, str]) -> dict[str, str]:
    taken = sorted({*FIELDS, TENSORS} & set(metadata))
    if taken:
        raise ArgumentError(f"The metadata may not have {', '.join(taken)}, which the header already has.")
    if header.input_size[0] != in_channels:
        raise ArgumentError(f"Expected an input_size of {in_channels} channels, the model's; got {header.input_size}.")
    try:
        header.check()
    except WrongValueError as error:
        raise ArgumentError(
            f"A network file cannot hold this: {'.'.join(map(str, error.where))}: {error.why}."
        ) from error
    return {**metadata, **header.as_text()}


def read_network(path: str | os.PathLike[str]) -> OpenedNetwork:
    """Read a network from a file that `save_network` wrote; its header is checked as strictly as its tensors.

    Raises:
        WeightsMismatchError: The tensors are not those of the network that the header describes.
        CheckpointError: There is no such header, or it makes no sense.
        WeightsUnavailableError, IntegrityError, UnsafeCheckpointError: As `load_checkpoint`.
    """
    return opened_network(load_checkpoint(path))
