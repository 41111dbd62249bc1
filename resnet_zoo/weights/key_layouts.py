"""Key layouts of state dicts, and how one becomes another.

Five layouts are known. Ours has torchvision's keys, and for ResNetV1D timm's; so only OpenMMLab's must be renamed:

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

mmseg and mmdet build their own ResNetV1D, with other keys than mmpretrain's; mmengine loads what fits and only logs the
rest. Layout ``mmseg`` is what both read as pretrained weights of a backbone (mmseg/models/backbones/resnet.py):

==========================================  ==================================================
mmseg and mmdet                             ours
==========================================  ==================================================
V1D ``stem.{0,1,3,4,6}.`` X                 ``conv1.{0,1,3,4,6}.`` X
V1D ``stem.7.`` X                           ``bn1.`` X
all others                                  the same
==========================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor

Layout = Literal["resnet_zoo", "torchvision", "timm", "openmmlab", "mmseg"]
LAYOUTS: tuple[Layout, ...] = ("resnet_zoo", "torchvision", "timm", "openmmlab", "mmseg")

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


_MMSEG_PREFIXES = (("conv1.", "stem."), ("bn1.", "stem.7."))
"""(ours, mmseg's) beginnings of a ResNetV1D's keys."""


def is_deep(keys: Iterable[str]) -> bool:
    """Tell whether keys, of any layout, have the deep stem of ResNetV1D."""
    return any(key.startswith(("conv1.0.", "backbone.stem.", "stem.")) for key in keys)


def layout_of(keys: Iterable[str]) -> Layout:
    """Return the layout of keys that carry no wrapper's prefix."""
    keys = list(keys)
    if any(key.startswith("backbone.") for key in keys):
        return "openmmlab"
    if any(key.startswith("stem.") for key in keys):
        return "mmseg"
    return "timm" if is_deep(keys) else "torchvision"


def from_ours(keys: Iterable[str], layout: Layout) -> list[tuple[str, str]]:
    """Return (old, new) beginnings that turn our keys into a layout's."""
    deep = is_deep(keys)
    if layout == "openmmlab":
        return list(_DEEP_PREFIXES if deep else _PREFIXES)
    return list(_MMSEG_PREFIXES) if layout == "mmseg" and deep else []


def to_ours(keys: Iterable[str], layout: Layout) -> list[tuple[str, str]]:
    """Return (old, new) beginnings that turn a layout's keys into ours."""
    pairs = [(theirs, ours) for ours, theirs in from_ours(keys, layout)]
    return sorted(pairs, key=lambda pair: -len(pair[0])) if layout == "mmseg" else pairs


def renamed(tensors: Mapping[str, Tensor], prefixes: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Return the tensors under keys whose beginning is exchanged: the first (old, new) pair that matches."""

    def rename(key: str) -> str:
        for old, new in prefixes:
            if key.startswith(old):
                return new + key[len(old) :]
        return key

    return {rename(key): tensor for key, tensor in tensors.items()}
