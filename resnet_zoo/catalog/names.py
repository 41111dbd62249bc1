"""What a NAME may stand for, in every command and function: a model, a repository of the Hugging Face Hub, a file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

from resnet_zoo.base.shown import suggestion
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, used_with
from resnet_zoo.errors import ArgumentError, UnknownModelError, WeightsUnavailableError

HUB_PREFIX = "hf-hub:"

FILE_SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".bin", ".ckpt"})
"""Suffixes of checkpoint files."""

Kind = Literal["row", "repository", "file"]


def kind_of(name: str | os.PathLike[str]) -> Kind:
    """Tell what a name stands for; a row is preferred where a file has the same name.

    Raises:
        UnknownModelError: It is not a row, and does not look like an address or a path.
        ManifestError: The manifest is broken.
    """
    if not isinstance(name, str):
        return "file"
    if name.startswith(HUB_PREFIX):
        return "repository"
    try:
        get_entry(name)
    except UnknownModelError:
        if Path(name).suffix.lower() in FILE_SUFFIXES or os.sep in name or "/" in name or Path(name).is_file():
            return "file"
        raise
    return "row"


def check_name(
    name: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None, size: int | None = None
) -> Kind:
    """Tell what a name stands for, and report what is wrong with it before torch is imported or anything is fetched.

    Args:
        name: A row or alias, ``hf-hub:owner/name[@revision]``, or the path of a network file.
        weights: For a row: a tag or path.
        size: For a row: a size that its weights were tested at.

    Raises:
        UnknownModelError: As `kind_of`.
        WeightsUnavailableError: The file does not exist.
        UnknownWeightsError: The row has no such tag.
        ArgumentError: The weights were not tested at this size, or a file or repository has its own.
    """
    kind = kind_of(name)
    if kind == "row":
        entry = get_entry(str(name))
        used_with(entry, entry.chosen(weights), size=size)
        return kind
    if weights is not None:
        refuse_weights(name, weights)
    if kind == "file":
        check_file(name)
    return kind


def row_named(name: str) -> Entry:
    """Return the row of a name, where nothing else will do.

    Raises:
        ArgumentError: It stands for a file or repository.
        UnknownModelError, WeightsUnavailableError: As `check_name`.
    """
    kind = check_name(name)
    if kind != "row":
        raise ArgumentError(
            f"{name} is a {kind}, and only a model of the zoo will do here. `resnet-zoo list` shows them."
        )
    return get_entry(name)


def refuse_weights(name: str | os.PathLike[str], weights: str | os.PathLike[str]) -> None:
    """Refuse weights that are given for a file or repository.

    Raises:
        ArgumentError: Always.
    """
    extra = os.fspath(weights)
    raise ArgumentError(f"{os.fspath(name)} has its own weights. Leave out {extra!r}, or name a model instead.")


def check_file(path: str | os.PathLike[str]) -> None:
    """Report a path that leads to no file, with the names beside it that are like it.

    Raises:
        WeightsUnavailableError: The path does not lead to anything, or may not be followed.
    """
    path = Path(path)
    try:
        path.stat()
    except OSError as error:
        known: list[str] = []
        with contextlib.suppress(OSError):
            known = [item.name for item in path.parent.iterdir() if item.suffix.lower() in FILE_SUFFIXES]
        why = f"{error.strerror}.{suggestion(path.name, known)} Check the path."
        raise WeightsUnavailableError("", str(path), why) from error
