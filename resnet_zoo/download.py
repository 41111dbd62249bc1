"""From a weight set to a verified local path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from resnet_zoo.errors import IntegrityError, WeightsUnavailableError
from resnet_zoo.files import sha256_of
from resnet_zoo.manifest import manifest_path, packaged_manifest
from resnet_zoo.records import Entry, UpstreamOrigin


def cache_path() -> Path:
    """Return the cache folder: ``$RESNET_ZOO_HOME``, else ``resnet_zoo`` in the platform's cache folder."""
    home = os.environ.get("RESNET_ZOO_HOME")
    if home:
        return Path(home).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "resnet_zoo"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "resnet_zoo" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "resnet_zoo"


def weights_path(entry: Entry, tag: str) -> Path:
    """Return the local file of a weight set, its full sha256 checked.

    The file is looked for beside the manifest, in the cache, and under the manifest's relative ``base_urls``.

    Raises:
        UnknownWeightsError: The row has no such tag.
        WeightsUnavailableError: The weight set has no file, or it is nowhere on this machine.
        IntegrityError: A file is there with other bytes.
    """
    weights = entry.weight_set(tag)
    if weights.file is None:
        raise WeightsUnavailableError(entry.name, tag, _how_to_get(weights.origin))
    for folder in _local_folders():
        path = folder / weights.file.path
        if path.is_file():
            actual = sha256_of(path)
            if actual != weights.file.sha256:
                raise IntegrityError(path, weights.file.sha256, actual)
            return path
    looked = ", ".join(map(str, _local_folders()))
    raise WeightsUnavailableError(
        entry.name, tag, f"{weights.file.path} is in none of {looked}. Put it in one of them."
    )


def _local_folders() -> list[Path]:
    root = manifest_path().parent
    relative = [root / url for url in packaged_manifest().base_urls if "://" not in url]
    return [root, *relative, cache_path()]


def _how_to_get(origin: object) -> str:
    advice = "no source of checked weights is configured for it yet."
    if isinstance(origin, UpstreamOrigin):
        advice += f" Download {origin.url} yourself and pass its path as weights (--weights PATH)."
    return advice
