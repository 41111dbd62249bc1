"""Feature maps of any layers, from a part of the network that ends with the last of them.

========================  =========================  ==================  ===========================================
layer here                torchvision's return node  timm's out_indices  what it is
========================  =========================  ==================  ===========================================
``stem.relu``             ``relu``                   0                   the stem before its max-pooling
``stem``                  ``maxpool``                                    the stem
``stage1`` to ``stage4``  ``layer1`` to ``layer4``   1 to 4              a stage
``stage3.5``              ``layer3.5``                                   the sixth block of the third stage
``pool``                  ``flatten``                                    pooled vectors (``num_classes=0`` in timm)
``logits``                ``fc``                                         logits
========================  =========================  ==================  ===========================================

timm's index 0 is the map *before* max-pooling, at half the size of the image; the layer ``stem`` comes after it. (A
CIFAR stem does not pool, and both are the same.) What torchvision and timm users write, and its equivalent::

    torchvision.models.feature_extraction.create_feature_extractor(model, {"layer2": "c3", "layer4": "c5"})(x)["c5"]
    resnet_zoo.FeatureExtractor(model, layers=("stage2", "stage4"))(x)["stage4"]

    timm.create_model("resnet50", features_only=True, out_indices=(2, 3, 4))(x)[0]
    resnet_zoo.create_feature_extractor("resnet50_in1k", layers=("stage2", "stage3", "stage4"))(x)["stage2"]

    body.feature_info.channels(), body.feature_info.reduction()                         # timm: lists
    body.channels, body.reductions                                                      # here: by layer

A backbone for detection or segmentation::

    body = resnet_zoo.create_feature_extractor("resnet50_in1k", layers=("stage2", "stage3", "stage4"), pretrained=True)
    body.freeze("stage1")
    fpn = torchvision.ops.FeaturePyramidNetwork(list(body.channels.values()), 256, LastLevelP6P7(256, 256))
    backbone = nn.Sequential(body, fpn)
    backbone.out_channels = 256
    RetinaNet(backbone, num_classes=91)

torchvision's ``BackboneWithFPN(body, {"layer2": "0", ...}, ...)`` takes an extractor too, under torchvision's names of
the modules; it takes the modules out, so see `FeatureExtractor.freeze` about batch-norm.

Shapes: N batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from resnet_zoo.errors import ArgumentError, UnknownLayerError
from resnet_zoo.network.counting import dry_run
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.network.trunk import LAYERS, Trunk

STAGES = tuple(layer for layer in LAYERS if layer.startswith("stage"))

_PROBE_SIZE = 256
"""Height and width of the image whose maps give the reductions: a multiple of the largest reduction."""


class FeatureExtractor(Trunk):
    """A network cut off after the last wanted layer; maps images (N, C, H, W) to a dict of feature maps.

    The modules are the network's own, not copies, under the same names: its state dict is a part of the network's, and
    training one trains the other. Freezing and gradient checkpointing set on the network before hold here too.

    Args:
        model: A network of `create_model`.
        layers: As `create_feature_extractor`.
        output_stride: As `create_model`. The network shares the modules, so this sets its stride too; ``None`` leaves
            it as it is.

    Attributes:
        layers: The layers returned, in the order asked for.

    Raises:
        UnknownLayerError, ArgumentError: As `create_feature_extractor`.

    Example:
        >>> model = resnet_zoo.create_model("resnet50_in1k")
        >>> body = resnet_zoo.FeatureExtractor(model, layers=("stage2", "stage4"))
        >>> body.channels, body.reductions
        ({'stage2': 512, 'stage4': 2048}, {'stage2': 8, 'stage4': 32})
    """

    def __init__(self, model: ResNet, *, layers: Sequence[str] = STAGES, output_stride: int | None = None) -> None:
        super().__init__()
        depths = [len(cast("nn.Sequential", model.get_submodule(LAYERS[stage][0]))) for stage in STAGES]
        check_layers(layers, depths)
        if output_stride is not None:
            model.set_output_stride(output_stride)
        self.layers = tuple(layers)
        blocks = _blocks_of(depths)
        last = max(layers, key=_in_order(blocks).index)
        if last == "logits" and isinstance(model.fc, nn.Identity):
            raise ArgumentError("The network has no classifier, and so no logits. Take pool, its vectors.")
        if last in ("pool", "logits") and isinstance(model.avgpool, nn.Identity):
            raise ArgumentError("The network does not pool, and so has no vectors. Take stage4, its maps.")
        self.drop = model.drop if last == "logits" else None
        self._after_stem: list[tuple[str, str, bool]] = []
        """Each layer after the stem's first maps, its module, and whether one of its blocks is wanted."""
        for layer, names in LAYERS.items():
            for name in names:
                self.add_module(name, model.get_submodule(name))
            if layer != "stem.relu":
                self._after_stem.append((layer, names[0], bool(set(blocks[layer]) & set(layers))))
            if last == layer:
                break
            if last in blocks[layer]:
                stage = cast("nn.Sequential", model.get_submodule(names[0]))
                self.add_module(names[0], stage[: 1 + blocks[layer].index(last)])
                break
        self.entry, self.frozen_up_to = model.entry, model.frozen_up_to
        self.training = model.training

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps (N, C', H', W') of each layer, in the order asked for; ``pool`` and ``logits`` are (N, C').

        Raises:
            ArgumentError: The images have another shape or type than the network takes.
            UnknownLayerError: A block that is wanted was taken out since.
        """
        x = self.forward_stem(images)
        maps = {"stem.relu": x} if "stem.relu" in self.layers else {}
        for layer, name, by_block in self._after_stem:
            module = getattr(self, name)
            if by_block:
                for index, block in enumerate(module):
                    x = block(x)
                    if f"{layer}.{index}" in self.layers:
                        maps[f"{layer}.{index}"] = x
            else:
                x = module(x if layer != "logits" or self.drop is None else self.drop(x))
            if layer == "pool":
                x = torch.flatten(x, 1)
            if layer in self.layers:
                maps[layer] = x
        for layer in self.layers:
            if layer not in maps:
                raise UnknownLayerError(layer, tuple(maps))
        return {layer: maps[layer] for layer in self.layers}

    @property
    def channels(self) -> dict[str, int]:
        """C of each layer, for ``logits`` the number of classes; measured from the network as it is now."""
        return {layer: maps.shape[1] for layer, maps in self._dry_run().items()}

    @property
    def reductions(self) -> dict[str, int]:
        """How many times smaller than the image each layer's map is; measured from the network as it is now.

        ``pool`` and ``logits`` are not maps and not in it. Sizes that cannot be divided are rounded up.
        """
        return {layer: _PROBE_SIZE // maps.shape[2] for layer, maps in self._dry_run().items() if maps.ndim == 4}

    def _dry_run(self) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = dry_run(self, _PROBE_SIZE)
        return maps


def _blocks_of(depths: Sequence[int]) -> dict[str, list[str]]:
    """Return the names of each layer's blocks, in order of computation; only stages have any."""
    depth_of = dict(zip(STAGES, depths, strict=True))
    return {layer: [f"{layer}.{index}" for index in range(depth_of.get(layer, 0))] for layer in LAYERS}


def _in_order(blocks: Mapping[str, Sequence[str]]) -> list[str]:
    """Return all names in order of computation, a stage after its blocks."""
    return [name for layer, parts in blocks.items() for name in (*parts, layer)]


def check_layers(layers: Sequence[str], depths: Sequence[int]) -> None:
    """Check that a network with so many blocks in its four stages has the layers, each named once.

    Raises:
        UnknownLayerError: One is not there.
        ArgumentError: There are none, one is named twice, or they are not a sequence of names.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise ArgumentError(f"Expected a sequence of layer names such as ('stage4',), got {layers!r}.")
    if not layers:
        raise ArgumentError(f"Expected at least one layer, got none. A network has {', '.join(LAYERS)}.")
    known = _in_order(_blocks_of(depths))
    for layer in layers:
        if not isinstance(layer, str):
            raise ArgumentError(
                f"Expected names of layers, got {layer!r}. timm's out_indices 0 to 4 are stem.relu and "
                f"{', '.join(STAGES)}."
            )
        if layer not in known:
            raise UnknownLayerError(layer, known)
        if layers.count(layer) > 1:
            raise ArgumentError(f"Expected each layer once, got {layer!r} twice in {', '.join(layers)}.")
