"""What this machine runs on: versions and devices, for results and bug reports."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
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
    """Return a device's name as people know it; of a CPU also the threads used, on which the last bits depend."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads, cores = torch.get_num_threads(), os.cpu_count()
        return f"{_processor()}, {cores} cores" + ("" if threads == cores else f", threads used: {threads}")
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


def code_sha256() -> str:
    """Return a sha256 over the package's Python sources, names and bytes, in order of names."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def checkout_state() -> tuple[str | None, bool | None]:
    """Return the commit of the checkout the package lies in and whether it has changes; ``None`` outside of one."""
    root = Path(__file__).parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None, None

    def ask(*arguments: str) -> str | None:
        done = subprocess.run([git, "-C", str(root), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else None

    commit, changes = ask("rev-parse", "HEAD"), ask("status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)
