"""The sketch of an architecture: one box per layer, as high as its maps, and the wider the more channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from resnet_zoo.catalog.architectures import ARCHITECTURES
from resnet_zoo.catalog.records import Entry

HEIGHT_PX = 232
"""Of the whole drawing; its width follows from the boxes."""

_BASE_PX, _TALLEST_PX, _SHORTEST_PX = 168, 136, 16
_COLUMN_PX, _GAP_PX = 78, 22


@dataclass(frozen=True)
class LayerShape:
    """What a layer gives for one image.

    Attributes:
        name: As `create_feature_extractor` names it.
        shape: (C, H, W), or (C,) after the pooling.
        params: Parameters of the modules between this layer and the one before.
    """

    name: str
    shape: tuple[int, ...]
    params: int


@dataclass(frozen=True)
class Box:
    """A layer in the drawing; coordinates are its upper left corner's, in pixels."""

    title: str
    shape: str
    blocks: str
    kind: str
    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> float:
        """Horizontal centre."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Layer:
    """A line of the table below the drawing.

    Attributes:
        name: As `create_feature_extractor` names it.
        title: Its name here.
        what: Its modules in words.
        shape: C x H x W.
        params: Parameters.
        share: Of all parameters.
    """

    name: str
    title: str
    what: str
    shape: str
    params: int
    share: float


def measure_layers(entry: Entry) -> tuple[LayerShape, ...]:
    """Return the layers of a row's network, measured without computing; none if its architecture is unknown."""
    if entry.architecture not in ARCHITECTURES:
        return ()
    from resnet_zoo.network.building import build_on_meta
    from resnet_zoo.network.counting import count_params, dry_run
    from resnet_zoo.network.features import FeatureExtractor
    from resnet_zoo.network.trunk import LAYERS

    model = build_on_meta(entry)
    maps = dry_run(FeatureExtractor(model, layers=tuple(LAYERS)), entry.input_size)
    return tuple(
        LayerShape(
            layer, tuple(maps[layer].shape[1:]), sum(count_params(model.get_submodule(module)) for module in modules)
        )
        for layer, modules in LAYERS.items()
        if layer != "stem" or entry.stem != "cifar"  # which does not pool: the layer before is the stem
    )


def layers_of(entry: Entry, shapes: Sequence[LayerShape]) -> tuple[Layer, ...]:
    """Return the lines of the table below the drawing."""
    total = sum(layer.params for layer in shapes)
    return tuple(
        Layer(
            name=layer.name,
            title=_title(layer.name),
            what=_words(entry, layer.name),
            shape=_product(layer.shape),
            params=layer.params,
            share=layer.params / total,
        )
        for layer in shapes
    )


def boxes_of(entry: Entry, shapes: Sequence[LayerShape]) -> tuple[Box, ...]:
    """Return the boxes of the drawing from left to right, the image first."""
    layers = [LayerShape("image", entry.input_size, 0), *shapes]
    largest = max(entry.input_size[1:])
    boxes: list[Box] = []
    for index, layer in enumerate(layers):
        height = _height(layer.shape, largest)
        width = 5 * math.log2(layer.shape[0] + 2)
        x = _GAP_PX + index * (_COLUMN_PX + _GAP_PX) + (_COLUMN_PX - width) / 2
        kind = "stage" if layer.name.startswith("stage") else "end" if len(layer.shape) == 1 else "start"
        blocks = _blocks(entry, layer.name)
        boxes.append(
            Box(
                _title(layer.name),
                _product(layer.shape),
                blocks,
                kind,
                *(round(v, 1) for v in (x, _BASE_PX - height, width, height)),
            )
        )
    return tuple(boxes)


def drawing_width(boxes: Sequence[Box]) -> int:
    """Return the drawing's width in pixels."""
    return len(boxes) * (_COLUMN_PX + _GAP_PX) + _GAP_PX


def _height(shape: Sequence[int], largest: int) -> float:
    """Return a box's height: the root of the maps' size, so that 7 pixels can be seen beside 224."""
    if len(shape) == 1:
        return _SHORTEST_PX
    return max(_SHORTEST_PX, _TALLEST_PX * math.sqrt(max(shape[1:]) / largest))


def _product(shape: Sequence[int]) -> str:
    return " × ".join(f"{size:,}" for size in shape)


_TITLES = {"image": "Image", "stem.relu": "Stem", "stem": "Max pool", "pool": "Average pool", "logits": "Classifier"}


def _title(name: str) -> str:
    return _TITLES.get(name, f"Stage {name[-1]}")


def _blocks(entry: Entry, name: str) -> str:
    return f"{ARCHITECTURES[entry.architecture].depths[int(name[-1]) - 1]} blocks" if name.startswith("stage") else ""


_STEM_WORDS = {
    "imagenet": "7×7 convolution, stride 2",
    "cifar": "3×3 convolution, no pooling",
    "deep": "three 3×3 convolutions, the first strides",
}
_BLOCK_WORDS = {"basic": "3×3, 3×3", "bottleneck": "1×1, 3×3, 1×1"}


def _words(entry: Entry, name: str) -> str:
    """Describe a layer in a few words."""
    if not name.startswith("stage"):
        rest = {"stem": "3×3, stride 2", "pool": "global mean of each map", "logits": "linear, with bias"}
        return _STEM_WORDS[entry.stem] if name == "stem.relu" else rest[name]
    architecture, stage = ARCHITECTURES[entry.architecture], int(name[-1])
    strides = (
        f"; the first strides, {'pooled' if architecture.shortcut == 'pooled' else 'projected'} shortcut"
        if stage > 1
        else ""
    )
    return f"{architecture.depths[stage - 1]} × ({_BLOCK_WORDS[architecture.block]}){strides}"
