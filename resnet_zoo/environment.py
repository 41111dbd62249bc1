"""What this machine runs on: versions and devices, for results and bug reports."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_zoo.cache import cache_path
from resnet_zoo.files import sha256_of
from resnet_zoo.manifest import manifest_path

if TYPE_CHECKING:
    import torch

_PACKAGES = ("resnet_zoo", "torch", "torchvision", "numpy", "pillow", "safetensors", "huggingface_hub", "requests")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that make the numbers, from their metadata."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_title(device: torch.device) -> str:
    """Return a device's name as people know it."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{_processor()}, {os.cpu_count()} cores"
    return str(device)


def environment() -> dict[str, Any]:
    """Return everything a bug report needs, as plain JSON values; imports torch to see the devices."""
    import torch

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
        "cache": {"path": str(cache), "exists": cache.is_dir()},
        "manifest": {"path": str(manifest_path()), "sha256": sha256_of(manifest_path())},
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
