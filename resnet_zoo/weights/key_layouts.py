"""Key layouts of state dicts, and how one becomes another.

Four layouts are known. Ours has torchvision's keys, and for ResNetV1D timm's; so only OpenMMLab's must be renamed:

==========================================  ==================================================
OpenMMLab                                   ours
==========================================  ==================================================
``backbone.`` X                             X
``head.fc.`` X                              ``fc.`` X
V1D ``backbone.stem.{0,1,2}.conv.`` X       ``conv1.{0,3,6}.`` X
V1D ``backbone.stem.{0,1}.bn.`` X           ``conv1.{1,4}.`` X
V1D ``backbone.stem.2.bn.`` X               ``bn1.`` X
V1D ``backbone.layer1.0.downsample.{0,1}``  ``layer1.0.downsample.{1,2}`` (no pool there upstream)
==========================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor

Layout = Literal["resnet_zoo", "torchvision", "timm", "openmmlab"]
LAYOUTS: tuple[Layout, ...] = ("resnet_zoo", "torchvision", "timm", "openmmlab")

_PREFIXES = (("fc.", "head.fc."), ("", "backbone."))
_DEEP_PREFIXES = (
    ("conv1.0.", "backbone.stem.0.conv."),
    ("conv1.1.", "backbone.stem.0.bn."),
    ("conv1.3.", "backbone.stem.1.conv."),
    ("conv1.4.", "backbone.stem.1.bn."),
    ("conv1.6.", "backbone.stem.2.conv."),
    ("bn1.", "backbone.stem.2.bn."),
    ("layer1.0.downsample.1.", "backbone.layer1.0.downsample.0."),
    ("layer1.0.downsample.2.", "backbone.layer1.0.downsample.1."),
    *_PREFIXES,
)
"""(ours, OpenMMLab's) beginnings of keys; the first that matches is exchanged."""


def is_deep(keys: Iterable[str]) -> bool:
    """Tell whether keys, ours or OpenMMLab's, have the deep stem of ResNetV1D."""
    return any(key.startswith(("conv1.0.", "backbone.stem.")) for key in keys)


def ours_to_openmmlab(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Return (old, new) beginnings that turn our keys into OpenMMLab's."""
    return list(_DEEP_PREFIXES if is_deep(keys) else _PREFIXES)


def openmmlab_to_ours(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Return (old, new) beginnings that turn OpenMMLab's keys into ours."""
    return [(theirs, ours) for ours, theirs in ours_to_openmmlab(keys)]


def renamed(tensors: Mapping[str, Tensor], prefixes: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Return the tensors under keys whose beginning is exchanged: the first (old, new) pair that matches."""

    def rename(key: str) -> str:
        for old, new in prefixes:
            if key.startswith(old):
                return new + key[len(old) :]
        return key

    return {rename(key): tensor for key, tensor in tensors.items()}
