"""What this machine runs on: versions and devices, for results and bug reports."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from resnet_zoo.base.files import sha256_of

_PACKAGES = ("resnet_zoo", "torch", "torchvision", "numpy", "pillow", "safetensors", "huggingface_hub", "requests")

_GIT_TIMEOUT_S = 60.0
"""How long git may take to say what has changed; on a slow network drive it may not end."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on, from their metadata."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def code_sha256() -> str:
    """Return a sha256 over the package's Python sources, names and bytes, in order of names."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def checkout_state() -> tuple[str | None, bool | None]:
    """Return the commit of the package's checkout and whether it has changes; ``None`` outside of one."""
    root = Path(__file__).parent.parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None, None

    def ask(*arguments: str) -> str | None:
        command = [git, "-C", str(root), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_GIT_TIMEOUT_S)  # noqa: S603
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit, changes = ask("rev-parse", "HEAD"), ask("status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def is_offline() -> bool:
    """Tell whether the network must not be used (``RESNET_ZOO_OFFLINE`` or ``HF_HUB_OFFLINE``)."""
    names = ("RESNET_ZOO_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)
