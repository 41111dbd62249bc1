"""resnet_zoo: fifteen residual networks whose every number can be checked.

The public names and their modules are listed in ``__init__.pyi`` alone. Importing the package imports neither torch nor
anything else heavy; what a name needs is imported on its first use.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def _read_homes() -> dict[str, str]:
    """Return the module of each public name, from lines such as ``from resnet_zoo.zoo import create_model as …``."""
    lines = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines()
    words = (line.split() for line in lines if line.startswith("from "))
    return {name: module for _, module, _, name, *_ in words}


_HOMES = _read_homes()

__all__ = sorted(_HOMES)  # a list of texts


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
