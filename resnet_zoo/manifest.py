"""The manifest: every fact about a row, written once in ``weights_manifest.json`` and read strictly.

The records in ``records.py`` are the schema. A missing or unknown field, a wrong type, a short hash or a duplicate
name is a ``ManifestError`` with row and field; there are no defaults for facts. ``weights_manifest.schema.json``
documents the same for other programs, and a test holds the two together.
"""

from __future__ import annotations

import contextlib
import functools
import json
import keyword
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from resnet_zoo.base.files import write_atomically
from resnet_zoo.base.strict_json import Place, WrongValueError, decode, expect, expect_sha256, object_without_duplicates
from resnet_zoo.errors import ArgumentError, ManifestError, UnknownModelError
from resnet_zoo.recipes import RECIPES
from resnet_zoo.records import Entry, Measured, OwnAccuracy, PageOrigin, Preprocess, UpstreamOrigin, WeightSet

SCHEMA_VERSION = 1

PACKAGE = Path(__file__).parent
MANIFEST_NAME = "weights_manifest.json"


@dataclass(frozen=True)
class Manifest:
    """All rows, in table order."""

    schema_version: int
    base_urls: tuple[str, ...]
    preprocess: dict[str, Preprocess]
    models: tuple[Entry, ...]

    def find(self, name: str) -> Entry:
        """Return the row with this name or alias.

        Raises:
            UnknownModelError: No row is called so.
        """
        for entry in self.models:
            if name == entry.name or name in entry.aliases:
                return entry
        raise UnknownModelError(name, [known for entry in self.models for known in (entry.name, *entry.aliases)])


_CHOSEN: ContextVar[Path | None] = ContextVar("manifest", default=None)


@contextlib.contextmanager
def use_manifest(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Use the manifest file of a private zoo within a ``with`` block; ``None`` changes nothing."""
    token = _CHOSEN.set(_CHOSEN.get() if path is None else Path(path).expanduser().absolute())
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
        return Path(private).expanduser().absolute()
    packaged = PACKAGE / MANIFEST_NAME
    return packaged if packaged.exists() else PACKAGE.parent / MANIFEST_NAME


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest file.

    Raises:
        ManifestError: The file is missing, is not JSON, or breaks a rule of the schema.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=object_without_duplicates)
    except OSError as error:
        raise ManifestError(path, "", "", f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(path, "", "", f"is not valid JSON: {error}") from error
    return parse_manifest(path, raw)


def parse_manifest(path: Path, content: Any) -> Manifest:
    """Check a manifest's parsed content; ``path`` is what errors call it.

    Raises:
        ManifestError: It breaks a rule of the schema.
    """
    try:
        manifest: Manifest = decode(Manifest, _resolve_preprocess(content), ())
        _check(manifest)
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
    """Return the row with this name or alias.

    Args:
        name: A row or alias.
        manifest: The manifest file of a private zoo; ``None`` means the one in use.

    Raises:
        UnknownModelError: No row is called so; the message carries near matches.
        ManifestError: The manifest is broken.
    """
    with use_manifest(manifest):
        return current_manifest().find(name)


def list_models(pattern: str | None = None, *, dataset: str | None = None) -> list[str]:
    """Return row names in table order.

    Args:
        pattern: Shell wildcards (``resnet*_cifar10``), compared with names and aliases; without a wildcard, a part
            of the name. ``None`` means all.
        dataset: Only rows of this data set (``cifar10``, ``cifar100``, ``in1k``).

    Raises:
        ManifestError: The manifest is broken.
    """
    return [
        entry.name
        for entry in current_manifest().models
        if _matches(entry, pattern) and dataset in (None, entry.dataset)
    ]


def class_names(classes: str) -> list[str]:
    """Return the names of a list of classes, in label order (ImageNet: all synonyms, comma-separated)."""
    return [line.split("\t")[-1] for line in _class_lines(classes)]


def class_folders(classes: str) -> list[str]:
    """Return the folder name of each class, in label order: the WordNet id for ImageNet, else the class name."""
    return [line.split("\t")[0] for line in _class_lines(classes)]


def _class_lines(classes: str) -> list[str]:
    return (PACKAGE / "classes" / f"{classes}.tsv").read_text(encoding="utf-8").splitlines()


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
        return raw  # decode says what is wrong with it
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


LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts that may be reached without TLS."""

_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_DECIMAL = re.compile(r"\d+\.\d{1,2}")
_OWN_DECIMAL = re.compile(r"\d+\.\d{1,3}")
_HUB_FILE = re.compile(r"hf://[\w.-]+/[\w.-]+@[0-9a-f]{40}/[\w.-]+\.safetensors")
_FILE_NAME = re.compile(r"\w[\w.+-]*")
TAG_FORM = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""What a weight set may be called."""


def _check(manifest: Manifest) -> None:
    """Check what types cannot say: versions, names, patterns, references, addresses."""
    expect(manifest.schema_version == SCHEMA_VERSION, str(SCHEMA_VERSION), manifest.schema_version, ("schema_version",))
    for index, url in enumerate(manifest.base_urls):
        _check_base_url(url, ("base_urls", index))
    for name, preprocess in manifest.preprocess.items():
        _check_preprocess(preprocess, ("preprocess", name))
    expect(bool(manifest.models), "at least one row", [], ("models",))
    taken: set[str] = set()
    for row, entry in enumerate(manifest.models):
        names = (("name",), entry.name), *((("aliases", index), alias) for index, alias in enumerate(entry.aliases))
        for place, name in names:
            where = ("models", row, *place)
            expect(name.isidentifier() and not keyword.iskeyword(name), "a Python identifier", name, where)
            expect(name not in taken, "a name no other row has", name, where)
            taken.add(name)
        _check_entry(entry, ("models", row))


def _check_entry(entry: Entry, row: Place) -> None:
    expect(entry.num_classes > 0, "a positive integer", entry.num_classes, (*row, "num_classes"))
    size = entry.input_size
    expect(len(size) == 3 and all(n > 0 for n in size), "[channels, height, width]", size, (*row, "input_size"))
    known = sorted(path.stem for path in (PACKAGE / "classes").glob("*.tsv"))
    expect(entry.classes in known, f"one of {', '.join(known)}", entry.classes, (*row, "classes"))
    expect(entry.recipe in RECIPES, f"one of {', '.join(RECIPES)}", entry.recipe, (*row, "recipe"))
    for field in ("top1", "top5", "params_m", "flops_g"):
        printed = getattr(entry.published, field)
        expect(bool(_DECIMAL.fullmatch(printed)), "a decimal as printed", printed, (*row, "published", field))
    for field in ("config_url", "log_url"):
        _check_url(getattr(entry.published, field), (*row, "published", field))
    for field in ("params", "flops", "flops_with_head", "macs"):
        count = getattr(entry.exact, field)
        expect(count > 0, "a positive integer", count, (*row, "exact", field))
    expect_sha256(entry.exact.state_dict_sha256, (*row, "exact", "state_dict_sha256"))
    known_tags = ", ".join(entry.weights)
    expect(
        entry.default_weights in entry.weights, f"one of {known_tags}", entry.default_weights, (*row, "default_weights")
    )
    for tag, weight_set in entry.weights.items():
        expect(
            bool(TAG_FORM.fullmatch(tag)), "a tag of lower-case letters, digits, - and _", tag, (*row, "weights", tag)
        )
        _check_weight_set(weight_set, (*row, "weights", tag))


def _check_weight_set(weight_set: WeightSet, where: Place) -> None:
    expect(bool(weight_set.license.strip()), "a licence", weight_set.license, (*where, "license"))
    if weight_set.file is not None:
        file = weight_set.file
        if file.is_on_hub:
            is_pinned = bool(_HUB_FILE.fullmatch(file.path))
            expect(is_pinned, "hf://owner/repo@commit/file.safetensors", file.path, (*where, "file", "path"))
        else:
            _check_relative_path(file.path, (*where, "file", "path"))
        expect_sha256(file.sha256, (*where, "file", "sha256"))
        expect(file.size_bytes > 0, "a positive integer", file.size_bytes, (*where, "file", "size_bytes"))
    if isinstance(weight_set.origin, UpstreamOrigin):
        origin = weight_set.origin
        _check_url(origin.url, (*where, "origin", "url"))
        is_file = bool(_FILE_NAME.fullmatch(origin.file_name))
        expect(is_file, "a URL that ends in a file name", origin.url, (*where, "origin", "url"))
        prefix = origin.sha256_prefix
        expect(bool(_PREFIX.fullmatch(prefix)), "8 to 64 hex digits", prefix, (*where, "origin", "sha256_prefix"))
        _check_witness(origin, (*where, "origin"))
    if isinstance(weight_set.origin, PageOrigin):
        _check_url(weight_set.origin.page, (*where, "origin", "page"))
    for index, own in enumerate(weight_set.published):
        _check_own_accuracy(own, (*where, "published", index))
    if weight_set.measured is not None:
        _check_measured(weight_set.measured, (*where, "measured"))


def _check_witness(origin: UpstreamOrigin, where: Place) -> None:
    witness = origin.witness
    if witness is None:
        return
    expect_sha256(origin.sha256_prefix, (*where, "sha256_prefix"))
    size = witness.size_bytes
    expect(size is None or size > 0, "a positive integer or null", size, (*where, "witness", "size_bytes"))
    expect(bool(witness.source.strip()), "who saw it", witness.source, (*where, "witness", "source"))


def _check_own_accuracy(own: OwnAccuracy, where: Place) -> None:
    for field in ("top1", "top5"):
        printed = getattr(own, field)
        expect(bool(_OWN_DECIMAL.fullmatch(printed)), "a decimal as printed", printed, (*where, field))
    crop = own.preprocess.crop
    expect(crop is not None, "preprocessing with a crop, the size tested at", crop, (*where, "preprocess"))
    _check_url(own.source, (*where, "source"))


def _check_measured(measured: Measured, where: Place) -> None:
    for field in ("top1", "top5"):
        percent = getattr(measured, field)
        expect(0 <= percent <= 100, "percent", percent, (*where, field))
    expect(measured.num_images > 0, "a positive integer", measured.num_images, (*where, "num_images"))


def _check_preprocess(preprocess: Preprocess, where: Place) -> None:
    sizes = (preprocess.short_edge, preprocess.crop)
    for field, size in zip(("short_edge", "crop"), sizes, strict=True):
        if preprocess.resize_backend is None:
            expect(size is None, "null, because nothing is resized", size, (*where, field))
        else:
            expect(size is not None and size > 0, "a positive integer", size, (*where, field))
    if preprocess.short_edge and preprocess.crop:
        expect(preprocess.crop <= preprocess.short_edge, "at most short_edge", preprocess.crop, (*where, "crop"))
    for field in ("mean", "std"):
        values = getattr(preprocess, field)
        good = len(values) == 3 and all(0 < value < 256 for value in values)
        expect(good, "three numbers between 0 and 256", list(values), (*where, field))


def _check_url(url: str, where: Place) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise WrongValueError(where, f"expected an https URL, got {url!r}") from None
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
    expect(is_safe and bool(host), "an https URL (http only for this machine)", url, where)


def _check_base_url(url: str, where: Place) -> None:
    if url.startswith("hf://"):
        expect(bool(re.fullmatch(r"hf://[\w.-]+/[\w.-]+@[\w.-]+", url)), "hf://owner/repo@revision", url, where)
    elif "://" in url:
        _check_url(url, where)
    else:
        _check_relative_path(url, where)


def _check_relative_path(path: str, where: Place) -> None:
    parts = path.split("/")
    safe = all(part not in ("", ".", "..") for part in parts) and not any(c in path for c in "\\:\0")
    expect(safe, "a relative path with forward slashes that stays inside its folder", path, where)


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
        before: The bytes it had when ``content`` was made from it.

    Raises:
        ManifestError: The content breaks a rule; the file is as it was.
        ArgumentError: The file was changed meanwhile.
        OSError: It cannot be written.
    """
    parse_manifest(path, content)
    if path.read_bytes() != before:
        raise ArgumentError(f"{path} was changed while this ran. Run it again; what is done already is not done twice.")
    write_atomically(path, lambda part: part.write_bytes(format_manifest(content).encode()))
    _read_once.cache_clear()
