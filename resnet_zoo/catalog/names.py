"""What a name of a network may stand for: a row, a repository on the Hugging Face Hub, or a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import UnknownModelError

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
