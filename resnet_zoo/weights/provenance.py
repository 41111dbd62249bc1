"""The chain from the manifest to the tensors in memory, every link with its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.manifest import manifest_path
from resnet_zoo.network.building import with_counters
from resnet_zoo.weights.opened import LoadedWeights


@dataclass(frozen=True)
class Chain:
    """Where the weights of a result come from.

    Attributes:
        manifest_sha256: Of the manifest in use.
        source: The URL or path the bytes came from.
        source_sha256: Of the source.
        pin: ``sha256`` where the manifest vouches for all 64 digits, ``32-bit pin`` where it knows eight of them,
            ``hub`` for a repository's file, for whose hash its ``config.json`` or the Hub vouches, ``path`` for a file
            given by path, which nobody vouches for.
        layout: The key layout of the file that was loaded.
        file: Name of the file that was loaded.
        file_sha256: Of that file, checked when it was loaded.
        tensors_sha256: Fingerprint of the tensors in memory, see `tensors_sha256`.
    """

    manifest_sha256: str
    source: str
    source_sha256: str
    pin: str
    layout: str
    file: str
    file_sha256: str
    tensors_sha256: str


def chain_of(weights: LoadedWeights) -> Chain:
    """Return the chain of weights that were loaded."""
    checkpoint, local = weights.checkpoint, weights.local
    return Chain(
        manifest_sha256=sha256_of(manifest_path()),
        source=local.source if local else str(checkpoint.path),
        source_sha256=local.source_sha256 if local else checkpoint.sha256,
        pin=local.pin if local else "path",
        layout=checkpoint.layout,
        file=checkpoint.path.name,
        file_sha256=checkpoint.sha256,
        tensors_sha256=tensors_sha256(with_counters(checkpoint.tensors)),
    )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return a fingerprint of values: sha256 over key, type, shape and bytes of every tensor, sorted by key.

    Equal for equal tensors, whatever file and layout they came from.
    """
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
