"""Networks as single files: safetensors whose header says the row, the class names and the preprocessing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_zoo.base.files import check_target, sha256_of, write_atomically
from resnet_zoo.base.strict_json import WrongValueError
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, Preprocess
from resnet_zoo.errors import ArgumentError
from resnet_zoo.network.building import build_on_meta, image_channels, shapes_of
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.weights.convert import safetensors_bytes
from resnet_zoo.weights.fit import check_fit
from resnet_zoo.weights.network_header import FIELDS, NetworkHeader


@dataclass(frozen=True)
class NetworkFile:
    """A network that was read from a file whose bytes were hashed.

    Attributes:
        entry: The row whose network it is, with the file's number of classes, preprocessing and input size.
        in_channels: Image channels.
        class_names: In label order.
        checkpoint: The weights, the file's sha256 and its header.
    """

    entry: Entry
    in_channels: int
    class_names: tuple[str, ...]
    checkpoint: Checkpoint


def save_network(
    path: str | os.PathLike[str],
    model: ResNet,
    *,
    row: str,
    class_names: Sequence[str],
    preprocess: Preprocess | None = None,
    input_size: Sequence[int] | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> str:
    """Write a network to a file that `create_model`, `predict`, `embed` and others take in place of a name.

    The same network gives the same bytes, and the file is moved into place when it is whole.

    Args:
        path: The file to write; ends in ``.safetensors``.
        model: A network of this package.
        row: The row (or alias) whose network it is.
        class_names: One per class of the model, in label order.
        preprocess: How an image gets in; ``None`` means the row's.
        input_size: Channels, height, width; ``None`` means the model's channels and the row's height and width.
        metadata: More texts for the header, to keep with the file: where it comes from.
        overwrite: Replace a file that exists.

    Returns:
        The file's sha256.

    Raises:
        ArgumentError: The path has another suffix, is a folder or exists; a number of names that is not the model's
            number of classes; a name, size or rule that `read_network` would refuse.
        UnknownModelError: No row is called ``row``.
        WeightsMismatchError: The model is not the row's network.
        OSError: The file cannot be written; nothing is left behind.
    """
    path = Path(path)
    check_target(path, (".safetensors",), overwrite=overwrite)
    entry = get_entry(row)
    tensors = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    num_classes, in_channels = model.fc.out_features, image_channels(tensors)
    if len(class_names) != num_classes:
        raise ArgumentError(f"Expected {num_classes} class names, one per class of the model; got {len(class_names)}.")
    size = (in_channels, *entry.input_size[1:]) if input_size is None else tuple(input_size)
    header = NetworkHeader(entry.name, tuple(class_names), preprocess or entry.preprocess, size)
    texts = _checked_texts(header, in_channels, metadata or {})
    expected = shapes_of(build_on_meta(entry, num_classes=num_classes, in_channels=in_channels).state_dict())
    check_fit(entry.name, expected, Checkpoint(tensors, "resnet_zoo", Path("The model"), "", {}))
    data = safetensors_bytes(tensors, texts)
    write_atomically(path, lambda part: part.write_bytes(data))
    return sha256_of(path)


def _checked_texts(header: NetworkHeader, in_channels: int, metadata: Mapping[str, str]) -> dict[str, str]:
    taken = sorted(set(FIELDS) & set(metadata))
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


def read_network(path: str | os.PathLike[str]) -> NetworkFile:
    """Read a network from a file that `save_network` wrote; its header is checked as strictly as its tensors.

    Raises:
        WeightsMismatchError: The tensors are not those of the network that the header describes.
        CheckpointError: There is no such header, or it makes no sense.
        WeightsUnavailableError, IntegrityError, UnsafeCheckpointError: As `load_checkpoint`.
    """
    checkpoint = load_checkpoint(path)
    header = NetworkHeader.read(checkpoint.header, checkpoint.path)
    entry, in_channels = header.entry, header.input_size[0]
    check_fit(entry.name, shapes_of(build_on_meta(entry, in_channels=in_channels).state_dict()), checkpoint)
    return NetworkFile(entry, in_channels, header.class_names, checkpoint)
