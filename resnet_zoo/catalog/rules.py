"""The rules of the manifest that types cannot say: names, patterns, references, addresses."""

from __future__ import annotations

import keyword
import re
from urllib.parse import urlsplit

from resnet_zoo.base.strict_json import Place, WrongValueError, expect, expect_sha256
from resnet_zoo.catalog.classes import class_lists
from resnet_zoo.catalog.recipes import RECIPES
from resnet_zoo.catalog.records import (
    MAX_CLASSES,
    MAX_EDGE,
    Entry,
    Manifest,
    Measured,
    OwnAccuracy,
    PageOrigin,
    Preprocess,
    UpstreamOrigin,
    WeightSet,
)

SCHEMA_VERSION = 1

MAX_ROWS = 1000
"""Rows of the largest manifest: every command reads all of them, at about a millisecond each."""


TAG_FORM = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""Pattern of the tag of a weight set."""

_FILE_NAME = re.compile(r"\w[\w.+-]*")
_HUB_FILE = re.compile(r"hf://\w[\w.-]*/\w[\w.-]*@[0-9a-f]{40}/\w[\w.-]*\.safetensors")
_OWN_DECIMAL = re.compile(r"\d+\.\d{1,3}")
_DECIMAL = re.compile(r"\d+\.\d{1,2}")
_PREFIX = re.compile(r"[0-9a-f]{8,64}")

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts that may be reached without TLS."""


def check_rules(manifest: Manifest) -> None:
    """Check what types cannot say: versions, names, patterns, references, addresses.

    Raises:
        WrongValueError: A rule is broken.
    """
    expect(manifest.schema_version == SCHEMA_VERSION, str(SCHEMA_VERSION), manifest.schema_version, ("schema_version",))
    for index, url in enumerate(manifest.base_urls):
        _check_base_url(url, ("base_urls", index))
    for name, preprocess in manifest.preprocess.items():
        _check_preprocess(preprocess, ("preprocess", name))
    expect(0 < len(manifest.models) <= MAX_ROWS, f"1 to {MAX_ROWS} models", len(manifest.models), ("models",))
    taken: set[str] = set()
    for row, entry in enumerate(manifest.models):
        names = (("name",), entry.name), *((("aliases", index), alias) for index, alias in enumerate(entry.aliases))
        for place, name in names:
            where = ("models", row, *place)
            expect(name.isidentifier() and not keyword.iskeyword(name), "a Python identifier", name, where)
            expect(name not in taken, "a name that no other model has", name, where)
            taken.add(name)
        _check_entry(entry, ("models", row))


def _check_entry(entry: Entry, row: Place) -> None:
    classes, size = entry.num_classes, entry.input_size
    expect(0 < classes <= MAX_CLASSES, f"a positive integer up to {MAX_CLASSES}", classes, (*row, "num_classes"))
    good_size = len(size) == 3 and all(0 < n <= MAX_EDGE for n in size)
    expect(good_size, f"[channels, height, width] of up to {MAX_EDGE}", size, (*row, "input_size"))
    known = class_lists()
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
    if isinstance(weight_set.origin, PageOrigin):
        expect(bool(weight_set.published), "what its publisher printed", [], (*where, "published"))
    for index, own in enumerate(weight_set.published):
        _check_own_accuracy(own, (*where, "published", index))
        sizes = [other.preprocess.crop for other in weight_set.published[:index]]
        crop = own.preprocess.crop
        expect(crop not in sizes, "a crop that is not listed before", crop, (*where, "published", index, "preprocess"))
    if weight_set.measured is not None:
        _check_measured(weight_set.measured, (*where, "measured"))


def _check_witness(origin: UpstreamOrigin, where: Place) -> None:
    witness = origin.witness
    if witness is None:
        return
    expect_sha256(origin.sha256_prefix, (*where, "sha256_prefix"))
    size = witness.size_bytes
    expect(size is None or size > 0, "a positive integer or null", size, (*where, "witness", "size_bytes"))
    expect(bool(witness.source.strip()), "who vouches for it", witness.source, (*where, "witness", "source"))


def _check_own_accuracy(own: OwnAccuracy, where: Place) -> None:
    for field in ("top1", "top5"):
        printed = getattr(own, field)
        expect(bool(_OWN_DECIMAL.fullmatch(printed)), "a decimal as printed", printed, (*where, field))
        expect(float(printed) <= 100, "percent", printed, (*where, field))
    crop = own.preprocess.crop
    expect(crop is not None, "preprocessing with a crop, which is the test size", crop, (*where, "preprocess"))
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
