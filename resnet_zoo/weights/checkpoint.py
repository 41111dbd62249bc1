"""Checkpoints of any layout, read without running code."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_zoo.base.files import sha256_of
from resnet_zoo.base.shown import shown
from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.catalog.names import check_file
from resnet_zoo.catalog.records import UpstreamOrigin
from resnet_zoo.errors import ArgumentError, CheckpointError, IntegrityError, WeightsUnavailableError
from resnet_zoo.weights.key_layouts import Layout, layout_of, renamed, to_ours
from resnet_zoo.weights.pickles import Inert, TensorPlan
from resnet_zoo.weights.safetensors_files import looks_like_safetensors, parse_safetensors, read_hashed
from resnet_zoo.weights.torch_files import open_torch_file

_LOG = logging.getLogger("resnet_zoo")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        tensors: The state dict under our keys; floating-point tensors in float32.
        layout: The layout the file was written in.
        path: The file.
        sha256: Of the file's bytes, 64 hex digits.
        header: The text metadata of a safetensors file, empty for others.
        dtypes: The types that the file stores its values in, such as ``float32`` and ``int64``.
        weights_key: The key of the file under which the weights lie; ``None`` if the file itself is the state dict.
        prefix: What all keys of the file began with and was taken off, such as ``module.``.
    """

    tensors: dict[str, Tensor]
    layout: Layout
    path: Path
    sha256: str
    header: Mapping[str, str]
    dtypes: frozenset[str] = frozenset()
    weights_key: str | None = None
    prefix: str = ""


def load_checkpoint(
    path: str | os.PathLike[str], *, sha256: str | None = None, weights_key: str | None = None
) -> Checkpoint:
    """Read a checkpoint of any known layout without running code.

    Reads safetensors, and PyTorch files (zip and legacy pickle) as OpenMMLab 0.x and 1.x, torchvision, timm and
    Lightning write them. Of a PyTorch file only tensors and plain values are read; other objects beside the weights are
    passed over, and nothing is imported or called. Where averaged weights (EMA) were saved beside others, they are
    taken, and a warning of the logger ``resnet_zoo`` says so. A file named like a published upstream checkpoint must
    also have that checkpoint's hash.

    Args:
        path: A .safetensors file, or any PyTorch checkpoint.
        sha256: The expected sha256 of the file, or its leading digits.
        weights_key: The key of a PyTorch file under which the weights lie, such as ``state_dict_ema`` or ``model``;
            ``None`` finds it.

    Raises:
        ArgumentError: The file has no weights under ``weights_key``.
        WeightsUnavailableError: The file does not exist, or cannot be opened.
        IntegrityError: The file's sha256 is not the expected one; no byte of the file was parsed.
        UnsafeCheckpointError: The file asks to run code; the error names what it asks for.
        CheckpointError: The file is empty, damaged or changed while it was read, or holds no state dict.

    Example:
        >>> checkpoint = resnet_zoo.load_checkpoint("checkpoint.pth")
        >>> checkpoint.layout, checkpoint.tensors["conv1.weight"].shape
        ('openmmlab', torch.Size([64, 3, 7, 7]))
    """
    path = Path(path)
    before = _stat(path)
    data, actual = _bytes_or_none(path)
    expected = (sha256.lower(),) if sha256 else _upstream_hashes(path.name)
    if expected and not actual.startswith(expected):
        raise IntegrityError(path, " or ".join(expected), actual)
    if before.st_size == 0:
        raise CheckpointError(path, "the file is empty. Fetch it again.")
    if data is not None:
        if weights_key is not None:
            raise ArgumentError(f"{path} is safetensors, which has no keys to choose from. Leave out {weights_key!r}.")
        tensors, header = parse_safetensors(data, path)
        del data
    else:
        (tensors, weights_key), header = _read_torch_file(path, weights_key), {}
        if _stat(path) != before:  # what was read is then not what was hashed
            raise CheckpointError(path, "it changed while it was read. Try again when nothing writes to it.")
    tensors, prefix = _without_wrapper_prefix(tensors)
    layout = layout_of(tensors)
    tensors = renamed(tensors, to_ours(tensors, layout))
    if "source_sha256" in header and layout in ("torchvision", "timm"):
        layout = "resnet_zoo"
    widened = {key: _as_float32(key, tensor, path) for key, tensor in tensors.items()}
    dtypes = frozenset(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return Checkpoint(widened, layout, path, actual, header, dtypes, weights_key, prefix)


@dataclass(frozen=True)
class _Stat:
    """What changes when a file is written to or replaced."""

    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int


def _stat(path: Path) -> _Stat:
    check_file(path)
    with _unreadable_as_unavailable(path):
        found = path.stat()
    return _Stat(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _bytes_or_none(path: Path) -> tuple[Tensor | None, str]:
    """Return the bytes of a safetensors file, ``None`` of another, and the sha256."""
    with _unreadable_as_unavailable(path):
        if path.suffix.lower() == ".safetensors" or looks_like_safetensors(path):
            return read_hashed(path)
        return None, sha256_of(path)


@contextlib.contextmanager
def _unreadable_as_unavailable(path: Path) -> Iterator[None]:
    try:
        yield
    except IsADirectoryError:
        raise WeightsUnavailableError("", str(path), "that is a folder; pass the path of a file.") from None
    except OSError as error:
        raise WeightsUnavailableError("", str(path), f"{error.strerror}. Check the path.") from error


def _upstream_hashes(file_name: str) -> tuple[str, ...]:
    """Return the leading sha256 digits of the published upstream checkpoints of this name; rows may share one."""
    origins = (weights.origin for entry in current_manifest().models for weights in entry.weights.values())
    found = (origin for origin in origins if isinstance(origin, UpstreamOrigin) and origin.file_name == file_name)
    return tuple(dict.fromkeys(origin.sha256_prefix for origin in found))


def _read_torch_file(path: Path, weights_key: str | None) -> tuple[dict[str, Tensor], str | None]:
    """Read the state dict of a file of ``torch.save``, and return the key under which it lies too."""
    with open_torch_file(path) as file:
        plans, key = _state_dict(file.content, path, weights_key)
        if sum(math.prod(plan.shape) * plan.storage.dtype.itemsize for plan in plans.values()) > path.stat().st_size:
            raise CheckpointError(path, "it claims more values than it holds. Do not use it.")
        return {name: file.tensor(plan) for name, plan in plans.items()}, key


def _state_dict(content: Any, path: Path, weights_key: str | None) -> tuple[dict[str, TensorPlan], str | None]:
    """Find the state dict: what was asked for, averaged weights, others in a container, or the file itself.

    Returns:
        The state dict, and the key that it lies under.
    """
    key = _key_of_weights(content, path) if weights_key is None else weights_key
    if key is not None and not _has_key(content, key):
        keys = [name for name in content if _has_key(content, name)] if isinstance(content, dict) else []
        known = f"It has {', '.join(map(str, keys[:10]))}" if keys else "The file itself is the state dict, if any"
        raise ArgumentError(f"{path} has no weights under {key!r}. {known}.")
    found = content if key is None else content[key]
    if not isinstance(found, Mapping) or not found:
        what = "nothing" if isinstance(found, Mapping) else getattr(found, "name", type(found).__name__)
        raise CheckpointError(path, f"expected a state dict of tensors, got {what}. Save model.state_dict().")
    for name, value in found.items():
        if isinstance(value, Inert) and value.name.startswith("torch._utils._rebuild_"):
            why = f"{name} is not a dense tensor. Save the model without sparsity or quantisation."
            raise CheckpointError(path, why)
    strays = [_described(*item) for item in found.items() if not _is_tensor(*item)]
    if strays:
        some = ", ".join(map(shown, strays[:5]))
        raise CheckpointError(
            path, f"expected a state dict of tensors, but {some} is not one. Save model.state_dict()."
        )
    return dict(found), key


def _is_tensor(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, TensorPlan)


def _described(key: Any, value: Any) -> str:
    text = key.name if isinstance(key, Inert) else str(key)
    return f"{text} ({value.name})" if isinstance(value, Inert) else text


_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema")
_CONTAINERS = ("state_dict", "model", "model_state_dict", "net", "params")
"""Where trainers put weights: timm and BasicSR, torchvision's references, OpenMMLab and Lightning, and many by hand.

Where averaged weights (EMA) are saved too, they are the ones that were measured; timm loads them as well.
"""


def _key_of_weights(content: Any, path: Path) -> str | None:
    plain = next((key for key in _CONTAINERS if _has_key(content, key)), None)
    averaged = next((key for key in _AVERAGED if _has_key(content, key) and content[key]), None)
    if averaged == "ema_state_dict" and plain == "state_dict" and "steps" in content[averaged]:
        averaged, plain = plain, averaged  # mmengine's EMAHook exchanges the two before it saves
    if averaged is not None and plain is not None:
        _LOG.warning(
            "%s: taking the averaged weights, under %r; weights_key=%r takes the others.", path, averaged, plain
        )
    return averaged or plain


def _has_key(content: Any, key: Any) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(key), Mapping)


_COUNTERS = frozenset({"n_averaged", "steps"})
"""Beside the weights of torch's AveragedModel and of mmengine's: how many were averaged."""

_OUR_FIRST = frozenset({"conv1.weight", "conv1.0.weight", "stem.0.weight"})
_THEIR_FIRST = frozenset({"backbone.conv1.weight", "backbone.stem.0.conv.weight"})
"""The first convolution, under our keys (mmseg's for the last) and under OpenMMLab's."""


def _without_wrapper_prefix(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Take off what wrappers (DataParallel, torch.compile, AveragedModel, Lightning, …) put before every key.

    Of the beginnings that all keys share, it is the shortest that leaves a layout we know; if none does, the keys stay.

    Returns:
        The tensors, and the beginning that was taken off.
    """
    keys = [key for key in tensors if key not in _COUNTERS]
    shared = os.path.commonprefix(keys)  # noqa: RUF071  # letters are what is wanted
    for length in (0, *(place for place, letter in enumerate(shared, start=1) if letter == ".")):
        rest = {key[length:] for key in keys}
        is_openmmlab = _THEIR_FIRST & rest and "backbone.fc.weight" not in rest
        if _OUR_FIRST & rest or is_openmmlab:
            return ({key[length:]: tensors[key] for key in keys}, shared[:length]) if length else (tensors, "")
    return tensors, ""


def _as_float32(key: str, tensor: Tensor, path: Path) -> Tensor:
    """Widen half precision (the fp16 row's file stores it; lossless); keep integers; refuse the rest."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(
            path, f"{shown(key)} is not a dense tensor. Save the model without sparsity or quantisation."
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(path, f"{shown(key)} claims more values than the file holds for it. Do not use the file.")
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    if tensor.dtype not in (torch.float32, torch.int64):
        raise CheckpointError(path, f"{shown(key)} is {tensor.dtype}; expected float32, float16, bfloat16 or int64.")
    return tensor.detach()
