"""ResNet and ResNetV1D, in the papers' order.

ResNet: He et al., "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.
ResNetV1D: He et al., "Bag of Tricks for Image Classification with CNNs", https://arxiv.org/abs/1812.01187.

A bottleneck strides in its 3x3 convolution (torchvision's "v1.5"), as every row of the table does. State-dict keys
are torchvision's; for ResNetV1D, which torchvision lacks, timm's.

Shapes: N batch, C channels, H W height and width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from resnet_zoo.catalog.architectures import STAGE_WIDTHS, Architecture
from resnet_zoo.errors import ArgumentError
from resnet_zoo.network.counting import dry_run
from resnet_zoo.network.pooling import POOLS, check_global_pool
from resnet_zoo.network.trunk import Block, Trunk


class BasicBlock(Block):
    """Two 3x3 convolutions; the first strides. (N, C, H, W) to (N, width, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut

    @property
    def last_bn(self) -> nn.BatchNorm2d:
        """The batch-norm before the addition, whose weight starts at zero."""
        return self.bn2

    def compute(self, x: Tensor) -> Tensor:
        """Return the block's maps for maps ``x``, shapes as the class says."""
        identity = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        out = self.relu(out)  # a bare `return self.relu(out)` would be typed Any
        return out  # noqa: RET504


class Bottleneck(Block):
    """1x1 down, 3x3 with the stride, 1x1 up. (N, C, H, W) to (N, 4 * width, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    @property
    def last_bn(self) -> nn.BatchNorm2d:
        """The batch-norm before the addition, whose weight starts at zero."""
        return self.bn3

    def compute(self, x: Tensor) -> Tensor:
        """Return the block's maps for maps ``x``, shapes as the class says."""
        identity = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        out = self.relu(out)  # a bare `return self.relu(out)` would be typed Any
        return out  # noqa: RET504


def plain_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return the projection of the first paper: a 1x1 convolution that strides."""
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def pooled_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return the projection of ResNetV1D: average-pool by the stride, then a 1x1 convolution.

    ``ceil_mode`` keeps odd maps as large as the strided main branch makes them. Without a stride an identity holds
    the pool's place, so that the keys are the same in every stage (timm's keys).
    """
    return nn.Sequential(shortcut_pool(stride), conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels))


def shortcut_pool(stride: int, *, dilated: bool = False) -> nn.Module:
    """Return the pool of a ResNetV1D's shortcut; in place of a stride, a dilated block has one of the map's own size.

    That one counts the padding at the right and bottom edge, as timm's does.
    """
    if stride > 1:
        return nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, 1)) if dilated else nn.Identity()


BLOCKS: dict[str, type[BasicBlock | Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def stem_convolutions(stem: str, in_channels: int) -> nn.Module:
    """Return the convolutions in front of ``bn1``: 64 channels out.

    Args:
        stem: ``imagenet`` (7x7, stride 2), ``cifar`` (3x3, stride 1) or ``deep`` (three 3x3, the first strides).
        in_channels: Channels of the images.
    """
    if stem == "imagenet":
        return nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if stem == "cifar":
        return conv3x3(in_channels, 64)
    if stem == "deep":
        return nn.Sequential(
            conv3x3(in_channels, 32, stride=2),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            conv3x3(32, 32),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            conv3x3(32, 64),
        )
    raise ValueError(f"expected a stem of imagenet, cifar or deep, got {stem!r}")


class ResNet(Trunk):
    """A residual network: stem, four stages, global average pool, linear classifier.

    Args:
        architecture: A value of `ARCHITECTURES`.
        stem: ``imagenet``, ``cifar`` or ``deep``.
        num_classes: K; 0 for a network without a classifier, which returns pooled vectors.
        in_channels: Channels of the images.

    Attributes:
        fc: The classifier; an identity if there is none.
        drop: What the pooled vectors go through before it, such as a dropout; ``None`` for nothing.
    """

    avgpool: nn.Module
    drop: nn.Module | None

    def __init__(
        self, architecture: Architecture, *, stem: str = "imagenet", num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = stem_convolutions(stem, in_channels)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = build_stages(architecture)
        self.avgpool = POOLS["avg"]()
        num_features = STAGE_WIDTHS[-1] * BLOCKS[architecture.block].expansion
        self.drop = None
        self.fc = nn.Linear(num_features, num_classes) if num_classes else cast("nn.Linear", nn.Identity())
        self.initialise()

    def initialise(self) -> None:
        """Draw fresh values as upstream does.

        Convolutions: Kaiming normal, fan-out. Batch-norm: weight 1, bias 0, but weight 0 for the last one of each
        block, which starts as the identity. Classifier: N(0, 0.01), bias 0. (torchvision differs in both last points.)
        """
        if self.bn1.weight.is_meta:
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_(module.last_bn.weight)
        if isinstance(self.fc, nn.Linear):
            initialise_classifier(self.fc)

    def initialise_by_layer(self) -> None:
        """Draw fresh values as each of torch's layers does on its own; no block starts as the identity.

        Convolutions and classifier: uniform within 1/sqrt(fan-in), about 0.4 of the scale that upstream draws. Behind a
        batch-norm the scale of weights divides the step that gradients make, so a short training learns faster so.
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for normalised images (N, C, H, W), or pooled vectors (N, C') without a classifier.

        Raises as `stages`.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the maps of the last stage (N, C', H', W') for normalised images; raises as `stages`."""
        return self.stages(x)["stage4"]

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the feature maps of the stem and of each stage.

        Args:
            x: Normalised images (N, C, H, W).

        Returns:
            ``stem`` and ``stage1`` to ``stage4``, each (N, C', H', W').

        Raises:
            ArgumentError: The images have another shape or type than the network takes.
        """
        maps: dict[str, Tensor] = {}
        maps["stem"] = x = self.maxpool(self.forward_stem(x))
        maps["stage1"] = x = self.layer1(x)
        maps["stage2"] = x = self.layer2(x)
        maps["stage3"] = x = self.layer3(x)
        maps["stage4"] = self.layer4(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (N, K), or pooled vectors (N, C') before the classifier, for maps of the last stage.

        Without pooling (see `set_global_pool`) it returns the maps.
        """
        x = self.avgpool(x)
        x = x if isinstance(self.avgpool, nn.Identity) else torch.flatten(x, 1)
        x = x if self.drop is None else self.drop(x)
        return x if pre_logits else self.fc(x)

    @property
    def num_features(self) -> int:
        """C' of the pooled vectors, which the classifier takes."""
        old = next((module for module in self.fc.modules() if isinstance(module, nn.Linear)), None)
        return cast("BasicBlock | Bottleneck", self.layer4[-1]).last_bn.num_features if old is None else old.in_features

    @property
    def num_classes(self) -> int:
        """K of the logits; 0 without a classifier."""
        if isinstance(self.fc, nn.Linear):
            return self.fc.out_features
        if isinstance(self.fc, nn.Identity):
            return 0
        logits: Tensor = dry_run(self, _PROBE_SIZE)
        return logits.shape[1]

    def get_classifier(self) -> nn.Module:
        """Return the classifier, ``fc``; an identity if there is none."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, whatever ``fc`` is now, by a fresh linear one of the network's device and type.

        Args:
            num_classes: K; 0 leaves the network without a classifier, and it returns pooled vectors.
            global_pool: How maps become vectors from now on, as in `set_global_pool`; ``None`` changes nothing.

        Raises:
            ArgumentError: ``num_classes`` is negative, or as `set_global_pool`.
        """
        if num_classes < 0:
            raise ArgumentError(f"Expected a num_classes of 0 or more, got {num_classes}.")
        is_unpooled = isinstance(self.avgpool, nn.Identity) if global_pool is None else not global_pool
        check_global_pool("" if is_unpooled else global_pool or "avg", num_classes)
        scale = cast("BasicBlock | Bottleneck", self.layer4[-1]).last_bn.weight
        if num_classes:
            self.fc = nn.Linear(self.num_features, num_classes, device=scale.device, dtype=scale.dtype)
            initialise_classifier(self.fc)
        else:
            self.fc = cast("nn.Linear", nn.Identity())
        if self.entry is not None:
            self.entry = replace(self.entry, num_classes=num_classes)
        if global_pool is not None:
            self.avgpool = POOLS[global_pool]()

    def set_global_pool(self, global_pool: str) -> None:
        """Choose how the maps of the last stage become a vector, as timm's ``global_pool`` does.

        The weights stay as they are, and were trained with the mean: a pretrained classifier is of no use with another
        pool. No file keeps it.

        Args:
            global_pool: ``avg`` for the mean of each map, ``max`` for its maximum, ``avgmax`` for the mean of both;
                empty for none: the network, which must have no classifier, then returns the maps.

        Raises:
            ArgumentError: It is another word, or empty and the network has a classifier.
        """
        check_global_pool(global_pool, self.num_classes)
        self.avgpool = POOLS[global_pool]()

    def set_output_stride(self, output_stride: int) -> None:
        """Let the last stages dilate their convolutions instead of striding, so that their maps stay larger.

        The weights stay as they are. It is torchvision's ``replace_stride_with_dilation``, and, for what torchvision
        lacks (basic blocks, ResNetV1D), timm's ``output_stride``. Extractors made of this network follow.

        Args:
            output_stride: How many times smaller than the image the last stage's maps are: 32 (without dilation), 16
                or 8; 8, 4 or 2 for a CIFAR stem, which does not reduce.

        Raises:
            ArgumentError: It is another number.
        """
        reduction = _PROBE_SIZE // dry_run(nn.Sequential(self.conv1, self.maxpool), _PROBE_SIZE).shape[2]
        check_output_stride(output_stride, reduction)
        dilation = 1
        for stage in (self.layer2, self.layer3, self.layer4):
            stride = 2 if reduction < output_stride else 1
            reduction, before, dilation = reduction * stride, dilation, dilation * 2 // stride
            first, *others = stage
            _set_stride(first, stride, before, dilation)
            for block in others:
                _set_stride(block, 1, dilation, dilation)


STEM_REDUCTIONS = {"imagenet": 4, "cifar": 1, "deep": 4}
"""How many times smaller than the image a stem's maps are."""

_PROBE_SIZE = 64
"""Height and width of the image whose maps give the stem's reduction."""


def check_output_stride(output_stride: int, stem_reduction: int) -> None:
    """Check that a network with this reduction of its stem can have the output stride.

    Raises:
        ArgumentError: It cannot.
    """
    possible = [stem_reduction * factor for factor in (8, 4, 2)]
    if output_stride not in possible:
        raise ArgumentError(
            f"Expected an output_stride of {possible[0]}, {possible[1]} or {possible[2]} for this network, "
            f"got {output_stride!r}."
        )


def _set_stride(block: Any, stride: int, dilation: int, last_dilation: int) -> None:
    """Set the stride and dilation of a block's first 3x3 convolution, and the dilation of a second one."""
    convolutions = [block.conv1, block.conv2] if isinstance(block, BasicBlock) else [block.conv2]
    for convolution, number in zip(convolutions, (dilation, last_dilation), strict=False):
        convolution.dilation = convolution.padding = (number, number)
    convolutions[0].stride = (stride, stride)
    if block.downsample is None:
        return
    first = block.downsample.get_submodule("0")
    if isinstance(first, nn.Conv2d):
        first.stride = (stride, stride)
    else:
        block.downsample.add_module("0", shortcut_pool(stride, dilated=True).train(first.training))


def build_stages(architecture: Architecture) -> Iterator[nn.Sequential]:
    """Yield the blocks of each stage; the first block changes stride and channels, and has a shortcut where it does."""
    block = BLOCKS[architecture.block]
    project = pooled_shortcut if architecture.shortcut == "pooled" else plain_shortcut
    in_channels, stride = 64, 1
    for width, depth in zip(STAGE_WIDTHS, architecture.depths, strict=True):
        out_channels = width * block.expansion
        shortcut = project(in_channels, out_channels, stride) if stride > 1 or in_channels != out_channels else None
        first = block(in_channels, width, stride, shortcut)
        yield nn.Sequential(first, *(block(out_channels, width, 1, None) for _ in range(depth - 1)))
        in_channels, stride = out_channels, 2


def initialise_classifier(classifier: nn.Linear) -> None:
    """Draw fresh values for a classifier: weight N(0, 0.01), bias 0."""
    nn.init.normal_(classifier.weight, 0.0, 0.01)
    nn.init.zeros_(classifier.bias)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the map's size divided by the stride."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
