"""The eight architectures as facts: `resnet_zoo.network.resnet` builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STAGE_WIDTHS = (64, 128, 256, 512)
"""Channels of the 3x3 convolutions in each stage."""


@dataclass(frozen=True)
class Architecture:
    """A network without its stem and classifier: the kind of block, how many per stage, and the shortcut."""

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]
    shortcut: Literal["plain", "pooled"] = "plain"


ARCHITECTURES = {
    "resnet18": Architecture("basic", (2, 2, 2, 2)),
    "resnet34": Architecture("basic", (3, 4, 6, 3)),
    "resnet50": Architecture("bottleneck", (3, 4, 6, 3)),
    "resnet101": Architecture("bottleneck", (3, 4, 23, 3)),
    "resnet152": Architecture("bottleneck", (3, 8, 36, 3)),
    "resnetv1d50": Architecture("bottleneck", (3, 4, 6, 3), "pooled"),
    "resnetv1d101": Architecture("bottleneck", (3, 4, 23, 3), "pooled"),
    "resnetv1d152": Architecture("bottleneck", (3, 8, 36, 3), "pooled"),
}
