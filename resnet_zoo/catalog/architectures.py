"""The eight architectures as facts, and what follows from them without building a network: shapes and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

STAGE_WIDTHS = (64, 128, 256, 512)

STEM_WIDTHS: dict[str, tuple[int, ...]] = {"imagenet": (64,), "cifar": (64,), "deep": (32, 32, 64)}
"""Channels after each convolution of a stem."""

EXPANSIONS = {"basic": 1, "bottleneck": 4}
"""Channels that come out of a block, for each of its width."""


@dataclass(frozen=True)
class Plan:
    """A network without its stem and classifier: the kind of block, how many per stage, and the shortcut."""

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]
    shortcut: Literal["plain", "pooled"] = "plain"


PLANS = {
    "resnet18": Plan("basic", (2, 2, 2, 2)),
    "resnet34": Plan("basic", (3, 4, 6, 3)),
    "resnet50": Plan("bottleneck", (3, 4, 6, 3)),
    "resnet101": Plan("bottleneck", (3, 4, 23, 3)),
    "resnet152": Plan("bottleneck", (3, 8, 36, 3)),
    "resnetv1d50": Plan("bottleneck", (3, 4, 6, 3), "pooled"),
    "resnetv1d101": Plan("bottleneck", (3, 4, 23, 3), "pooled"),
    "resnetv1d152": Plan("bottleneck", (3, 8, 36, 3), "pooled"),
}


@dataclass(frozen=True)
class LayerShape:
    """The output of a layer for one image.

    Attributes:
        name: As `create_feature_extractor` calls it.
        shape: (C, H, W), or (C,) for pooled vectors and logits.
        params: Parameters of the modules between this layer and the one before.
    """

    name: str
    shape: tuple[int, ...]
    params: int


def layer_shapes(plan: Plan, *, stem: str, input_size: Sequence[int], num_classes: int) -> tuple[LayerShape, ...]:
    """Return shape and parameters of every layer, from the stem to the logits.

    Args:
        plan: A value of `PLANS`.
        stem: ``imagenet``, ``cifar`` or ``deep``.
        input_size: (C, H, W) of an image.
        num_classes: Width of the classifier.
    """
    channels, height, width = input_size
    size = (height, width) if stem == "cifar" else _halved(height, width)
    layers = [LayerShape("stem.relu", (64, *size), _stem_params(stem, channels))]
    size = size if stem == "cifar" else _halved(*size)
    layers.append(LayerShape("stem", (64, *size), 0))
    channels = 64
    for stage, (stage_width, depth) in enumerate(zip(STAGE_WIDTHS, plan.depths, strict=True), start=1):
        size = size if stage == 1 else _halved(*size)
        out_channels = stage_width * EXPANSIONS[plan.block]
        params = _stage_params(plan, channels, stage_width, depth, strides=stage > 1)
        layers.append(LayerShape(f"stage{stage}", (out_channels, *size), params))
        channels = out_channels
    classifier = LayerShape("logits", (num_classes,), channels * num_classes + num_classes)
    return (*layers, LayerShape("pool", (channels,), 0), classifier)


def _halved(height: int, width: int) -> tuple[int, int]:
    """Return a map's size after any of the layers that stride; each is padded so that odd sizes are rounded up."""
    return -(-height // 2), -(-width // 2)


def _convolution(in_channels: int, out_channels: int, kernel: int) -> int:
    """Count a convolution without bias and the batch-norm after it."""
    return kernel * kernel * in_channels * out_channels + 2 * out_channels


def _stem_params(stem: str, in_channels: int) -> int:
    kernel = 7 if stem == "imagenet" else 3
    return sum(_convolution(a, b, kernel) for a, b in pairwise((in_channels, *STEM_WIDTHS[stem])))


def _stage_params(plan: Plan, in_channels: int, width: int, depth: int, *, strides: bool) -> int:
    out_channels = width * EXPANSIONS[plan.block]
    shortcut = _convolution(in_channels, out_channels, 1) if strides or in_channels != out_channels else 0
    first = _block_params(plan, in_channels, width)
    return first + shortcut + (depth - 1) * _block_params(plan, out_channels, width)


def _block_params(plan: Plan, in_channels: int, width: int) -> int:
    if plan.block == "basic":
        return _convolution(in_channels, width, 3) + _convolution(width, width, 3)
    out_channels = width * EXPANSIONS[plan.block]
    return _convolution(in_channels, width, 1) + _convolution(width, width, 3) + _convolution(width, out_channels, 1)
