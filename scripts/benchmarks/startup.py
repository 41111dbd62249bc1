"""From the shell to the first table, against importing the peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.timing import Contestants, Options, compare


def measure(options: Options) -> None:
    """Print the table."""
    compare("resnet-zoo list, whole process", startup_contestants(), options.rounds)


def startup_contestants() -> Contestants:
    def run(*arguments: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    return {
        "resnet-zoo list": run("-m", "resnet_zoo", "list"),
        "import torchvision": run("-c", "import torchvision"),
        "import timm": run("-c", "import timm"),
    }
