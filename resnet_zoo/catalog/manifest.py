"""The manifest: every fact about a row, written once in ``weights_manifest.json`` and read strictly.

The records in ``records.py`` are the schema. A missing or unknown field, a wrong type, a short hash or a duplicate
name raises a ``ManifestError`` that names row and field; no fact has a default.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from resnet_zoo.base.files import expanded, read_regular, write_atomically
from resnet_zoo.base.strict_json import Place, WrongValueError, decode, parse
from resnet_zoo.catalog.records import Entry, Manifest
from resnet_zoo.catalog.rules import check_rules
from resnet_zoo.errors import ArgumentError, ManifestError

PACKAGE = Path(__file__).parent.parent
MANIFEST_NAME = "weights_manifest.json"


_CHOSEN: ContextVar[Path | None] = ContextVar("manifest", default=None)


@contextlib.contextmanager
def use_manifest(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Use the manifest file of a private zoo within a ``with`` block; ``None`` changes nothing."""
    token = _CHOSEN.set(_CHOSEN.get() if path is None else expanded(path).absolute())
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def manifest_path() -> Path:
    """Return the manifest in use: that of `use_manifest`, else ``$RESNET_ZOO_MANIFEST``, else the package's own.

    The package's own is inside it in a wheel, and one folder up in a checkout.
    """
    private = _CHOSEN.get() or os.environ.get("RESNET_ZOO_MANIFEST")
    if private:
        return expanded(private).absolute()
    packaged = PACKAGE / MANIFEST_NAME
    return packaged if packaged.exists() else PACKAGE.parent / MANIFEST_NAME


def writable_manifest_path() -> Path:
    """Return the manifest in use, to be written.

    Raises:
        ArgumentError: It is that of an installed package, which its next update would replace.
    """
    path = manifest_path()
    if path == PACKAGE / MANIFEST_NAME:
        raise ArgumentError(
            f"{path} belongs to the installed package, whose next update would replace it. Copy that file, and pass "
            "the copy (--manifest zoo.json); or run this in a checkout, installed with pip install -e."
        )
    return path


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest file.

    Raises:
        ManifestError: The file is missing, is not JSON, or breaks a rule of the schema.
    """
    try:
        raw = parse(read_regular(path).decode())
    except OSError as error:
        raise ManifestError(path, "", "", f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ManifestError(path, "", "", f"is not valid JSON: {error}") from error
    return parse_manifest(path, raw)


def parse_manifest(path: Path, content: Any) -> Manifest:
    """Check a manifest's parsed content; ``path`` names it in errors.

    Raises:
        ManifestError: It breaks a rule of the schema.
    """
    try:
        manifest: Manifest = decode(Manifest, _resolve_preprocess(content), ())
        check_rules(manifest)
    except WrongValueError as wrong:
        row, field = _place(content, wrong.where)
        raise ManifestError(path, row, field, wrong.why) from None
    return manifest


_read_once = functools.lru_cache(maxsize=8)(read_manifest)


def current_manifest() -> Manifest:
    """Return the manifest in use (`manifest_path`), each file read once.

    Raises:
        ManifestError: It is broken.
    """
    return _read_once(manifest_path())


def get_entry(name: str, *, manifest: str | os.PathLike[str] | None = None) -> Entry:
    """Return the model with this name or alias.

    Args:
        name: A model or alias.
        manifest: The manifest file of a private zoo; ``None`` means the one in use.

    Raises:
        UnknownModelError: No model has this name; the message suggests close matches.
        ManifestError: The manifest cannot be read, or breaks a rule.

    Example:
        >>> entry = resnet_zoo.get_entry("resnet50")
        >>> entry.name, entry.input_size, entry.exact.params, entry.published.top1
        ('resnet50_in1k', (3, 224, 224), 25557032, '76.55')
    """
    with use_manifest(manifest):
        return current_manifest().find(name)


def list_models(pattern: str | None = None, *, dataset: str | None = None) -> list[str]:
    """Return the names of the models in table order.

    Args:
        pattern: Shell wildcards (``resnet*_cifar10``), matched against names and aliases; text without a wildcard
            matches any part of a name. ``None`` means all.
        dataset: Only models of this data set (``cifar10``, ``cifar100`` or ``in1k``).

    Raises:
        ManifestError: The manifest cannot be read, or breaks a rule.

    Example:
        >>> resnet_zoo.list_models("resnetv1d*")
        ['resnetv1d50_in1k', 'resnetv1d101_in1k', 'resnetv1d152_in1k']
        >>> resnet_zoo.list_models("50", dataset="cifar100")
        ['resnet50_cifar100']
    """
    return [
        entry.name
        for entry in current_manifest().models
        if _matches(entry, pattern) and dataset in (None, entry.dataset)
    ]


def _matches(entry: Entry, pattern: str | None) -> bool:
    if pattern is None:
        return True
    if not any(character in pattern for character in "*?["):
        pattern = f"*{pattern}*"
    return any(fnmatchcase(name, pattern) for name in (entry.name, *entry.aliases))


# --- strict reading -----------------------------------------------------------------------------------------------


def _place(raw: Any, where: Place) -> tuple[str, str]:
    """Turn ("models", 3, "exact", "params") into the row's name and "exact.params"."""
    if len(where) >= 2 and where[0] == "models":
        row = raw["models"][where[1]]
        name = row.get("name") if isinstance(row, dict) else None
        return str(name or where[1]), ".".join(map(str, where[2:]))
    return "", ".".join(map(str, where))


def _resolve_preprocess(raw: Any) -> Any:
    """Put the named preprocessing block in the place of its name in each row, and in each accuracy of a weight set."""
    if not (isinstance(raw, dict) and isinstance(raw.get("models"), list) and isinstance(raw.get("preprocess"), dict)):
        return raw  # decode reports what is wrong with it
    blocks = raw["preprocess"]
    return {**raw, "models": [_resolved(row, blocks, ("models", index)) for index, row in enumerate(raw["models"])]}


def _resolved(value: Any, blocks: dict[str, Any], where: Place) -> Any:
    """Return parsed JSON in which every ``preprocess`` is the block it names."""
    if isinstance(value, list):
        return [_resolved(item, blocks, (*where, index)) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    return {
        key: _named_block(item, blocks, (*where, key))
        if key == "preprocess"
        else _resolved(item, blocks, (*where, key))
        for key, item in value.items()
    }


def _named_block(name: Any, blocks: dict[str, Any], where: Place) -> Any:
    if not isinstance(name, str) or name not in blocks:
        raise WrongValueError(where, f"expected one of {', '.join(blocks)}, got {name!r}")
    return blocks[name]


_SHORT_LIST = re.compile(r"\[\n\s*([^\[\]{}]*?)\n\s*\]")  # only JSON's own brackets stand at a line's end


def format_manifest(content: Any) -> str:
    """Return the manifest's text for its parsed content: two-space JSON, lists of plain values on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _SHORT_LIST.sub(lambda match: "[" + re.sub(r"\s*\n\s*", " ", match[1]) + "]", text) + "\n"


def replace_manifest(path: Path, content: Any, before: bytes) -> None:
    """Replace a manifest in one step, after all its checks.

    Args:
        path: The manifest.
        content: Its new parsed content.
        before: Its bytes when ``content`` was made from it.

    Raises:
        ManifestError: The content breaks a rule; the file is unchanged.
        ArgumentError: The file was changed meanwhile.
        OSError: It cannot be written.
    """
    parse_manifest(path, content)
    if path.read_bytes() != before:
        raise ArgumentError(f"{path} changed while this ran. Run it again; finished work is not repeated.")
    write_atomically(path, lambda part: part.write_bytes(format_manifest(content).encode()))
    _read_once.cache_clear()
