"""Parameters and FLOPs.

The table's FLOPs column counts one multiply-accumulate as one operation, module by module, with the classifier left
out. The rule is that of mmcv's counter as ``tools/get_flops.py`` of OpenMMLab called it (it swaps ``forward`` for
the feature extractor); with it all fifteen published values are met to the printed digit. For ResNet-50 at 224x224
the usual counters disagree as follows:

===========================  =======  ==============================================================================
rule here                    G        what is counted
===========================  =======  ==============================================================================
``openmmlab``                4.120    conv, batch-norm 2 per input value, ReLU 1 per output value and call, pooling 1
                                      per input value; linear layers not; the residual addition not
``openmmlab_with_head``      4.122    the same and the linear layer, without its bias
``macs``                     4.089    conv and linear only: torchvision's published figures, ptflops, and (times two)
                                      ``torch.utils.flop_counter``
(mmengine, fvcore)           4.112    conv, linear, batch-norm and the adaptive pool, but no ReLU and no other pool
===========================  =======  ==============================================================================
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from resnet_zoo.errors import ArgumentError

FlopsRule = Literal["openmmlab", "openmmlab_with_head", "macs"]

RULES: dict[FlopsRule, tuple[str, ...]] = {
    "openmmlab": ("conv", "batch_norm", "relu", "pool"),
    "openmmlab_with_head": ("conv", "batch_norm", "relu", "pool", "linear"),
    "macs": ("conv", "linear"),
}
"""The kinds of module that each rule counts."""


def count_params(model: nn.Module) -> int:
    """Count the parameters of a model, trainable or not; buffers (batch-norm statistics) are not counted.

    Example:
        >>> resnet_zoo.count_params(resnet_zoo.create_model("resnet18_cifar10"))
        11173962
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(model: nn.Module, input_size: int | Sequence[int], *, rule: FlopsRule = "openmmlab") -> int:
    """Count the operations of one forward pass of one image, on the meta device.

    Nothing is computed, and the model is not changed. As upstream, only modules are counted: an operation called as a
    function (``F.relu``) is not.

    Args:
        model: A network of convolution, batch-norm, ReLU, pooling and linear modules.
        input_size: (C, H, W) of the image; or (H, W) or its edge, with the channels of the first convolution.
        rule: ``openmmlab`` (the table's), ``openmmlab_with_head`` or ``macs``; see the module's docstring.

    Raises:
        ArgumentError: The rule is not one of the three, or ``input_size`` is not the size of an image.

    Example:
        >>> resnet_zoo.count_flops(resnet_zoo.create_model("resnet18_cifar10"), (3, 32, 32))
        557211648
    """
    if rule not in RULES:
        raise ArgumentError(f"Expected a rule of {', '.join(RULES)}, got {rule!r}.")
    return flops_by_rule(tally_operations(model, input_size), rule)


def flops_by_rule(tally: Mapping[str, int], rule: FlopsRule) -> int:
    """Sum a tally of `tally_operations` by a rule."""
    return sum(tally[kind] for kind in RULES[rule])


def tally_operations(model: nn.Module, input_size: int | Sequence[int]) -> Counter[str]:
    """Count the operations of one forward pass of one image by kind of module, on the meta device."""
    tally: Counter[str] = Counter()

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kind, operations = _operations(module, inputs[0], output)
        tally[kind] += operations

    with _hooked(model, add):
        dry_run(model, input_size)
    return tally


def dry_run(model: nn.Module, input_size: int | Sequence[int]) -> Any:
    """Run the model on one image of meta values and return its output: a shape without values.

    Nothing is computed, and the model and its tensors are left as they were. The size is given as to `count_flops`.
    """
    size = _image_size(model, input_size)
    tensors = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    image = torch.empty(1, *size, device="meta", dtype=dtype)
    with _shapes_only(model), _evaluating(model), torch.no_grad():
        return torch.func.functional_call(model, tensors, (image,))


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """Return the convolution that takes the images.

    Raises:
        ArgumentError: There is none.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module
    raise ArgumentError("Expected a convolutional network, got a module without a convolution.")


def _image_size(model: nn.Module, input_size: Any) -> tuple[int, ...]:
    """Return (C, H, W) for a size in any of the forms that `count_flops` takes."""
    size = tuple(input_size) if isinstance(input_size, Iterable) else (input_size, input_size)
    if len(size) not in (2, 3) or not all(isinstance(number, Integral) and int(number) > 0 for number in size):
        raise ArgumentError(f"Expected an input_size of (C, H, W), (H, W) or one positive integer, got {input_size!r}.")
    return size if len(size) == 3 else (first_convolution(model).in_channels, *size)


def _operations(module: nn.Module, x: Tensor, output: Tensor) -> tuple[str, int]:
    """Kind and operations of one call of one module. Source: mmcv's ``flops_counter.py`` (the arithmetic)."""
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        return "conv", output.numel() * height * width * module.in_channels // module.groups
    if isinstance(module, nn.Linear):
        return "linear", output.numel() * module.in_features
    if isinstance(module, nn.BatchNorm2d):
        return "batch_norm", 2 * x.numel()
    if isinstance(module, nn.ReLU):
        return "relu", output.numel()
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        return "pool", x.numel()
    return "other", 0


@contextlib.contextmanager
def _hooked(model: nn.Module, hook: Any) -> Iterator[None]:
    leaves = [module for module in model.modules() if not any(module.children())]
    handles: list[RemovableHandle] = [leaf.register_forward_hook(hook) for leaf in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _shapes_only(model: nn.Module) -> Iterator[None]:
    """Let batch-norm and ReLU hand their input through: the shape stays, and their meta kernels are slow Python."""
    kinds = (nn.BatchNorm2d, nn.ReLU)
    modules = [module for module in model.modules() if isinstance(module, kinds) and "forward" not in vars(module)]
    for module in modules:
        vars(module)["forward"] = _unchanged
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["forward"]


def _unchanged(x: Tensor) -> Tensor:
    return x


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode (a batch of one cannot be normalised in training) and every module back after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
