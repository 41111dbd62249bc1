"""Checkpoints rewritten: from any layout to deterministic safetensors, and back to the layouts of others."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from resnet_zoo.base.files import check_target, sha256_of, write_atomically
from resnet_zoo.catalog.manifest import current_manifest, get_entry
from resnet_zoo.catalog.names import HUB_PREFIX, refuse_weights
from resnet_zoo.catalog.records import UpstreamOrigin
from resnet_zoo.errors import ArgumentError, IntegrityError
from resnet_zoo.network.building import expected_shapes, with_counters
from resnet_zoo.weights.checkpoint import Checkpoint, load_checkpoint
from resnet_zoo.weights.fit import check_fit, fitting_rows, nearest_row
from resnet_zoo.weights.hub import open_repository
from resnet_zoo.weights.key_layouts import LAYOUTS, Layout, from_ours, is_deep, renamed
from resnet_zoo.weights.network_header import NetworkHeader
from resnet_zoo.weights.opened import OpenedNetwork, opened_network


@dataclass(frozen=True)
class Conversion:
    """What `convert_checkpoint` wrote.

    Attributes:
        source: File name of the source, or the address of a repository.
        source_sha256: Its sha256.
        source_layout: Its layout.
        weights_key: The key of the source under which the weights lie; ``None`` if it is itself the state dict.
        prefix: What all its keys began with and was taken off; empty if nothing.
        target: The file written.
        sha256: Its sha256.
        size_bytes: Its size.
        layout: Its layout.
        name: The model the weights fit.
    """

    source: str
    source_sha256: str
    source_layout: Layout
    weights_key: str | None
    prefix: str
    target: str
    sha256: str
    size_bytes: int
    layout: Layout
    name: str


def convert_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str | None = None,
    layout: Layout = "resnet_zoo",
    overwrite: bool = False,
    sha256: str | None = None,
    weights_key: str | None = None,
) -> Conversion:
    """Rewrite a checkpoint as safetensors, the same bytes every time.

    Half-precision tensors become float32. The header names the model, the source and the source's sha256.

    Args:
        source: A checkpoint of any known layout, see `load_checkpoint`; or a network: a file of `save_network` or
            `finetune`, or ``hf-hub:owner/name``. Of a network its classes, preprocessing and what else its header says
            are kept in a ``.safetensors`` file of the layout ``resnet_zoo``, which works in place of a name again.
        target: The file to write: ``.safetensors``; or ``.pth`` for programs that read nothing else (a plain state
            dict, for ``openmmlab`` under ``state_dict``).
        name: The model it must fit. ``None`` means the model that a network names, or the one whose published
            checkpoint has the source's file name, else the first model of the table that fits.
        layout: Key layout to write: ``resnet_zoo``, ``torchvision``, ``timm``, ``openmmlab`` (mmclassification and
            mmpretrain) or ``mmseg`` (mmseg and mmdet, whose ResNetV1D has other keys than mmpretrain's).
        overwrite: Replace a target that exists.
        sha256: The expected sha256 of the source, or its leading digits.
        weights_key: The key of the source under which the weights lie, as in `load_checkpoint`.

    Raises:
        ArgumentError: The layout or the target's suffix is unknown, the target exists, torchvision's layout was asked
            for a ResNetV1D, or the source has no weights under ``weights_key``.
        UnknownModelError: ``name`` is not a model or alias.
        WeightsMismatchError: The checkpoint does not fit the model ``name``, or any model.
        OSError: The target cannot be written; nothing is left behind.
        WeightsUnavailableError, IntegrityError, UnsafeCheckpointError, CheckpointError: As `load_checkpoint`.
        DownloadError: The repository is unavailable.

    Example:
        >>> written = resnet_zoo.convert_checkpoint("checkpoint.pth", "resnet50.safetensors")
        >>> written.name, written.source_layout, written.layout
        ('resnet50_in1k', 'openmmlab', 'resnet_zoo')
    """
    target = Path(target)
    _check_target(target, layout, overwrite=overwrite)
    opened = _open(source, sha256, weights_key)
    if isinstance(opened, Checkpoint):
        checkpoint, entry = opened, get_entry(name or _row_of(opened))
        check_fit(entry.name, expected_shapes(entry), checkpoint)
    else:
        checkpoint, entry = opened.weights.checkpoint, opened.entry
        if name is not None and get_entry(name).name != entry.name:
            raise ArgumentError(f"{os.fspath(source)} is a network of {entry.name}, not of {get_entry(name).name}.")
    tensors = with_counters(checkpoint.tensors)
    if layout == "torchvision" and is_deep(tensors):
        raise ArgumentError(f"torchvision has no {entry.architecture}. Write layout timm, openmmlab or mmseg instead.")
    tensors = renamed(tensors, from_ours(tensors, layout))
    title = str(source) if _is_repository(source) else checkpoint.path.name
    header = {"format": "pt", "model": entry.name, "source": title, "source_sha256": checkpoint.sha256}
    if target.suffix == ".pth":
        content = {"meta": header, "state_dict": tensors} if layout == "openmmlab" else tensors
        write_atomically(target, lambda path: _save(content, path))
    else:
        own = _texts_of(opened) if layout == "resnet_zoo" else {}
        data = safetensors_bytes(tensors, {**own, **header})
        write_atomically(target, lambda path: path.write_bytes(data))
    return Conversion(
        source=title,
        source_sha256=checkpoint.sha256,
        source_layout=checkpoint.layout,
        weights_key=checkpoint.weights_key,
        prefix=checkpoint.prefix,
        target=str(target),
        sha256=sha256_of(target),
        size_bytes=target.stat().st_size,
        layout=layout,
        name=entry.name,
    )


def _is_repository(source: str | os.PathLike[str]) -> bool:
    return isinstance(source, str) and source.startswith(HUB_PREFIX)


def _open(source: str | os.PathLike[str], sha256: str | None, weights_key: str | None) -> Checkpoint | OpenedNetwork:
    """Open a checkpoint, or the network that a file or repository says it is."""
    if _is_repository(source):
        if weights_key is not None:
            refuse_weights(source, weights_key)
        network = open_repository(str(source))
        found = network.weights.checkpoint
        if sha256 is not None and not found.sha256.startswith(sha256.lower()):
            raise IntegrityError(found.path, sha256, found.sha256)
        return network
    checkpoint = load_checkpoint(source, sha256=sha256, weights_key=weights_key)
    return opened_network(checkpoint) if "class_names" in checkpoint.header else checkpoint


def _texts_of(opened: Checkpoint | OpenedNetwork) -> Mapping[str, str]:
    """Return what a network says of itself, for the header of the file that it is written to."""
    if isinstance(opened, Checkpoint):
        return {}
    entry, texts = opened.entry, opened.weights.checkpoint.header
    if opened.class_names is None or "class_names" in texts:
        return texts if "class_names" in texts else {}
    size = (opened.in_channels, *entry.input_size[1:])
    return NetworkHeader(entry.name, opened.class_names, entry.preprocess, size).as_text()


def _save(content: object, path: Path) -> None:
    """Write a PyTorch file; to an open file, because given a path torch.save writes its name into the archive."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(errno.EIO, f"torch.save failed: {error}", str(path)) from error


def safetensors_bytes(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    """Serialise tensors so that equal content gives equal bytes.

    The library writes the tensors in a fixed order but the metadata in a random one; so its header is put in order.
    """
    separate = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}
    data = safetensors.torch.save(separate, metadata=dict(header))
    start = 8 + int.from_bytes(data[:8], "little")
    return header_bytes(json.loads(data[8:start])) + data[start:]


def header_bytes(content: Mapping[str, Any], *, room: int = 0) -> bytes:
    """Return what a safetensors file begins with: eight bytes of length, and JSON padded with spaces to 8 bytes.

    Args:
        content: The JSON.
        room: Bytes to fill, if it takes fewer.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    text = text.ljust(max(room - 8, len(text) + -len(text) % 8))
    return len(text).to_bytes(8, "little") + text


def _check_target(target: Path, layout: str, *, overwrite: bool) -> None:
    if layout not in LAYOUTS:
        raise ArgumentError(f"Expected a layout of {', '.join(LAYOUTS)}, got {layout!r}.")
    check_target(target, (".safetensors", ".pth"), overwrite=overwrite)


def _row_of(checkpoint: Checkpoint) -> str:
    """Return the row a checkpoint belongs to: by its published file name, else the first that fits."""
    for entry in current_manifest().models:
        for weights in entry.weights.values():
            if isinstance(weights.origin, UpstreamOrigin) and weights.origin.file_name == checkpoint.path.name:
                return entry.name
    fits = fitting_rows(checkpoint.tensors)
    return fits[0] if fits else nearest_row(checkpoint.tensors)
