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

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from resnet_zoo.errors import ArgumentError, UnknownLayerError
from resnet_zoo.network.counting import dry_run
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.network.trunk import LAYERS, Trunk, modules_of

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

    Attributes:
        layers: The layers returned, in the order asked for.
        channels: C of each layer, for ``logits`` the number of classes.
        reductions: How many times smaller than the image each layer's map is, without ``pool`` and ``logits``, which
            are not maps. Sizes that cannot be divided are rounded up.

    Raises:
        UnknownLayerError, ArgumentError: As `create_feature_extractor`.

    Example:
        >>> model = resnet_zoo.create_model("resnet50_in1k")
        >>> body = resnet_zoo.FeatureExtractor(model, layers=("stage2", "stage4"))
        >>> body.channels, body.reductions
        ({'stage2': 512, 'stage4': 2048}, {'stage2': 8, 'stage4': 32})
    """

    def __init__(self, model: ResNet, *, layers: Sequence[str] = STAGES) -> None:
        super().__init__()
        depths = [len(module) for module in _stage_modules(model)]
        check_layers(layers, depths)
        self.layers = tuple(layers)
        self._sources, self._chain = _plan(self.layers, _blocks_of(depths))
        for name, module in _modules_used(model, self._chain):
            self.add_module(name, module)
        self.frozen_up_to = model.frozen_up_to
        self.training = model.training
        self.channels, self.reductions = self._measure()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps (N, C', H', W') of each layer, in the order asked for; ``pool`` and ``logits`` are (N, C').

        Raises:
            ArgumentError: The images have another shape or type than the network takes, or there are none.
        """
        found = self.compute_images(images, self._chain, tuple(self._sources.values()))
        return {layer: found[source] for layer, source in self._sources.items()}

    def _measure(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the channels and the reduction of each layer, taken from the shapes of its map."""
        in_channels = next(self.parameters()).shape[1]
        maps: dict[str, Tensor] = dry_run(self, (in_channels, _PROBE_SIZE, _PROBE_SIZE))
        channels = {layer: value.shape[1] for layer, value in maps.items()}
        return channels, {layer: _PROBE_SIZE // value.shape[2] for layer, value in maps.items() if value.ndim == 4}


def _stage_modules(model: ResNet) -> Iterator[nn.Sequential]:
    for stage in STAGES:
        for path in modules_of(stage):
            yield cast("nn.Sequential", model.get_submodule(path))


def _blocks_of(depths: Sequence[int]) -> dict[str, list[str]]:
    """Return every layer in order of computation, each with the names of its blocks (none unless it is a stage)."""
    depth_of = dict(zip(STAGES, depths, strict=True))
    return {layer: [f"{layer}.{index}" for index in range(depth_of.get(layer, 0))] for layer in LAYERS}


def check_layers(layers: Sequence[str], depths: Sequence[int]) -> None:
    """Check that a network with so many blocks in its four stages has the layers, each named once.

    Raises:
        UnknownLayerError: One is not there.
        ArgumentError: There are none, one is named twice, or they are no sequence of names.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise ArgumentError(f"Expected a sequence of layer names such as ('stage4',), got {layers!r}.")
    if not layers:
        raise ArgumentError(f"Expected at least one layer, got none. A network has {', '.join(LAYERS)}.")
    known = [name for layer, blocks in _blocks_of(depths).items() for name in (*blocks, layer)]
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


def _plan(layers: Sequence[str], blocks: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return which computed layer gives each wanted layer, and the layers to compute, in order.

    A stage is computed block by block where a block of it is wanted, and is then its last block.
    """
    chain: list[str] = []
    source: dict[str, str] = {}
    for layer, parts in blocks.items():
        steps = parts if set(parts) & set(layers) else (layer,)
        chain += steps
        source |= {**dict(zip(steps, steps, strict=True)), layer: steps[-1]}
    sources = {layer: source[layer] for layer in layers}
    return sources, tuple(chain[: 1 + max(map(chain.index, sources.values()))])


def _modules_used(model: ResNet, chain: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of the network that the layers need; the last may be only the first blocks of a stage."""
    paths = [path for layer in chain for path in modules_of(layer)]
    for name, module in model.named_children():
        num_blocks = sum(path.startswith(f"{name}.") for path in paths)
        if isinstance(module, nn.Sequential) and num_blocks:
            yield name, module[:num_blocks]
        elif name in paths:
            yield name, module
