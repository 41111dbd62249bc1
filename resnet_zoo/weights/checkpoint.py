"""Checkpoints of any layout, read without running code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from resnet_zoo.base.files import sha256_of
from resnet_zoo.base.shown import shown
from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.catalog.records import UpstreamOrigin
from resnet_zoo.errors import CheckpointError, IntegrityError, UnsafeCheckpointError, WeightsUnavailableError
from resnet_zoo.weights.key_layouts import Layout, is_deep, openmmlab_to_ours, renamed

MAX_BYTES = 1 << 32
"""Largest safetensors file that is read into memory; the largest row's has 241 MB."""


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
    """

    tensors: dict[str, Tensor]
    layout: Layout
    path: Path
    sha256: str
    header: Mapping[str, str]
    dtypes: frozenset[str] = frozenset()


def load_checkpoint(path: str | os.PathLike[str], *, sha256: str | None = None) -> Checkpoint:
    """Read a checkpoint of any known layout without running code.

    Reads safetensors, and PyTorch files (zip and legacy pickle) as OpenMMLab 0.x and 1.x, torchvision and timm write
    them, always with ``weights_only=True``. A file named like a published upstream checkpoint must also have that
    checkpoint's hash.

    Args:
        path: A .safetensors file, or any PyTorch checkpoint.
        sha256: The expected sha256 of the file, or its leading digits.

    Raises:
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
    data = _bytes_of(path, before.st_size)
    actual = _sha256_of(path) if data is None else hashlib.sha256(data).hexdigest()
    expected = (sha256.lower(),) if sha256 else _upstream_hashes(path.name)
    if expected and not actual.startswith(expected):
        raise IntegrityError(path, " or ".join(expected), actual)
    if before.st_size == 0:
        raise CheckpointError(path, "the file is empty. Fetch it again.")
    if data is not None:
        tensors, header = _read_tensors(data, path)
        del data
    else:
        tensors, header = _state_dict(_read_pickle(path), path), {}
        if _stat(path) != before:  # what was read is then not what was hashed
            raise CheckpointError(path, "it changed while it was read. Try again when nothing writes to it.")
    tensors = _without_wrapper_prefix(tensors)
    layout = _layout_of(tensors, header)
    if layout == "openmmlab":
        tensors = renamed(tensors, openmmlab_to_ours(tensors))
    widened = {key: _as_float32(key, tensor, path) for key, tensor in tensors.items()}
    dtypes = frozenset(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return Checkpoint(widened, layout, path, actual, header, dtypes)


@dataclass(frozen=True)
class _Stat:
    """What changes when a file is written to or replaced."""

    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int


def _stat(path: Path) -> _Stat:
    try:
        found = path.stat()
    except OSError as error:
        raise WeightsUnavailableError("", str(path), f"{error.strerror}. Check the path.") from error
    return _Stat(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _sha256_of(path: Path) -> str:
    with _unreadable_as_unavailable(path):
        return sha256_of(path)


def _bytes_of(path: Path, size_bytes: int) -> bytes | None:
    """Return the bytes of a safetensors file; ``None`` if it is another kind of file.

    They are read once, and hashed and used from memory: the tensors of a mapped file would change with it when somebody
    overwrites it, and end the process when somebody cuts it.

    Raises:
        CheckpointError: It has more than `MAX_BYTES`.
    """
    with _unreadable_as_unavailable(path):
        if path.suffix.lower() != ".safetensors" and not _looks_like_safetensors(path):
            return None
        if size_bytes > MAX_BYTES:
            raise CheckpointError(path, f"it has {size_bytes} bytes; the limit is {MAX_BYTES}.")
        return path.read_bytes()


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


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file as they are stored, and the texts of its header.

    Raises:
        CheckpointError: It is not such a file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(path, f"it cannot be read ({error.strerror}).") from error
    return _read_tensors(data, path)


def _read_tensors(data: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with torch.device("cpu"):  # whatever the caller's default is
            tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise CheckpointError(path, f"it is not valid safetensors ({error}). Fetch it again.") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # the library has just found it valid
    return tensors, header.get("__metadata__") or {}


def _looks_like_safetensors(path: Path) -> bool:
    """Tell whether a file begins as safetensors do: eight bytes of length, then a JSON object; no torch.save does."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


class _Ignored:
    """Stands in for the training state of an OpenMMLab 1.x checkpoint while it is read: takes all, does nothing."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_IGNORED_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name)
    for name in (
        "builtins.getattr",  # mmengine's HistoryBuffer pickles its methods through it
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
    )
]
"""Names that honest OpenMMLab files carry beside the weights. None is looked up: each becomes an `_Ignored`."""

_ALLOWING = threading.Lock()
"""torch keeps the allowed names for the whole process: the thread that is done first would forbid them to others."""

_WANTED = re.compile(
    r"GLOBAL (\S+) (?:was not|whose)|unrecognized function (.+?)(?: |$)|but got <class '([\w.]+)'>", re.MULTILINE
)
"""How torch's restricted unpickler says what it refused."""


def _read_pickle(path: Path) -> Any:
    _check_archive(path)
    try:
        with _ALLOWING, torch.serialization.safe_globals(_IGNORED_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile bytes can raise anything; whatever it is, the file was refused
        wanted = _WANTED.search(str(error))
        if wanted:
            raise UnsafeCheckpointError(path, next(filter(None, wanted.groups()))) from error
        why = "it is neither a PyTorch checkpoint nor safetensors, or it is damaged. Fetch it again."
        raise CheckpointError(path, why) from error


def _check_archive(path: Path) -> None:
    """Refuse a zip that is a program, or that would unpack to more than its own size (torch stores uncompressed)."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(path, f"it is a damaged zip archive ({error}). Fetch it again.") from error
    strays = [name for name in (member.filename for member in members) if ".." in name.split("/") or name[:1] == "/"]
    if strays:
        raise UnsafeCheckpointError(path, strays[0])
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise UnsafeCheckpointError(path, "TorchScript code")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError(path, "it unpacks to more than its own size, which torch.save never does. Do not use it.")


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the state dict: the file itself, or under ``state_dict`` (OpenMMLab, timm) or ``model`` (torchvision)."""
    found = next((content[key] for key in ("state_dict", "model") if _has_key(content, key)), content)
    if not isinstance(found, Mapping) or not found:
        what = "nothing" if isinstance(found, Mapping) else type(found).__name__
        raise CheckpointError(path, f"expected a state dict of tensors, got {what}. Save model.state_dict().")
    strays = [str(key) for key, value in found.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strays:
        some = ", ".join(map(shown, strays[:5]))
        raise CheckpointError(
            path, f"expected a state dict of tensors, but {some} is not one. Save model.state_dict()."
        )
    return dict(found)


def _has_key(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(key), Mapping)


def _without_wrapper_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what DistributedDataParallel and torch.compile put before every key."""
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


def _layout_of(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> Layout:
    if any(key.startswith("backbone.") for key in tensors):
        return "openmmlab"
    if "source_sha256" in header:
        return "resnet_zoo"
    return "timm" if is_deep(tensors) else "torchvision"


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
