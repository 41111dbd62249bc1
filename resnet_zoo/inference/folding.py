"""Batch-norm folded into the convolution before it.

In eval mode a batch-norm is y = (x - mean) / sqrt(var + eps) * weight + bias, linear in x, and so is the convolution
before it; their product is one convolution with a bias (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section
3.2). Every batch-norm of a ResNet has a convolution before it; those of ResNetV1D's stem and pooled shortcuts too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from resnet_zoo.errors import ArgumentError


def fold_batch_norms(network: nn.Module) -> int:
    """Fold every batch-norm into the convolution before it, in place, and leave an identity where it was.

    Args:
        network: In eval mode.

    Returns:
        How many were folded.

    Raises:
        ArgumentError: One has no convolution before it, or no statistics.
    """
    pairs = [pair for module in list(network.modules()) for pair in _convolutions_and_norms(module)]
    for parent, convolution, name in pairs:
        _fold(convolution, getattr(parent, name))
        setattr(parent, name, nn.Identity())
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ArgumentError(f"Batch-norm {name} has no convolution before it to fold it into.")
    return len(pairs)


def _convolutions_and_norms(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Conv2d, str]]:
    """Yield (module, convolution, name of the batch-norm after it) for the children of a module.

    ``bn1`` follows ``conv1``, as everywhere in torchvision's names; in a sequence, each follows the one before it.
    """
    children = dict(module.named_children())
    names = list(children)
    for index, name in enumerate(names):
        if not isinstance(children[name], nn.BatchNorm2d):
            continue
        if isinstance(module, nn.Sequential):
            before = children[names[index - 1]] if index else None
        else:
            before = children.get(re.sub("^bn", "conv", name))
        if isinstance(before, nn.Sequential) and len(before):  # ResNetV1D's stem: its last convolution has no norm
            before = before[-1]
        if isinstance(before, nn.Conv2d):
            yield module, before, name


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Make the convolution compute what both did; in float64, so that only the last rounding differs.

    The weight becomes float64 in the product, not before: a copy of it would take longer than the rest.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ArgumentError("A batch-norm without running statistics cannot be folded.")
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    bias, scale, shift = (
        None if tensor is None else tensor.double() for tensor in (convolution.bias, norm.weight, norm.bias)
    )
    weight, bias = fuse_conv_bn_weights(convolution.weight, bias, mean, variance, norm.eps, scale, shift)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
