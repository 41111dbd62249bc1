"""``env``: everything a bug report needs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from resnet_zoo.base.files import is_reachable_folder, sha256_of
from resnet_zoo.base.machine import versions
from resnet_zoo.catalog.manifest import manifest_path
from resnet_zoo.weights.cache import cache_path


def environment() -> dict[str, Any]:
    """Return everything a bug report needs, as plain JSON values; imports torch to see the devices."""
    import torch

    from resnet_zoo.base.devices import device_title

    cache = cache_path()
    return {
        "versions": versions(),
        "devices": {
            "platform": platform.platform(),
            "cpu": device_title(torch.device("cpu")),
            "cpu_threads": torch.get_num_threads(),
            "cuda": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "cuda_runtime": torch.version.cuda,
            "mps": torch.backends.mps.is_available(),
        },
        "cache": {"path": str(cache), "exists": is_reachable_folder(cache)},
        "manifest": {"path": str(manifest_path()), "sha256": sha256_of(manifest_path())},
    }


def in_words(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return an `environment` as lines for a person."""
    devices, cache, manifest = found["devices"], found["cache"], found["manifest"]
    return {
        **found["versions"],
        "platform": devices["platform"],
        "CPU": devices["cpu"],
        "CPU threads": devices["cpu_threads"],
        "CUDA devices": devices["cuda"] or "none",
        "CUDA of torch": devices["cuda_runtime"] or "none",
        "Apple's GPU (MPS)": "yes" if devices["mps"] else "no",
        "cache": cache["path"],
        "cache exists": "yes" if cache["exists"] else "no",
        "manifest": manifest["path"],
        "manifest sha256": manifest["sha256"],
    }
