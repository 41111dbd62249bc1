"""What a network and its feature extractor share: layers with names, frozen layers, blocks computed twice.

Shapes: N batch, C channels, H W height and width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError, UnknownLayerError
from resnet_zoo.network.counting import first_convolution

if TYPE_CHECKING:
    from typing_extensions import Self

LAYERS = {
    "stem.relu": ("conv1", "bn1", "relu"),
    "stem": ("maxpool",),
    "stage1": ("layer1",),
    "stage2": ("layer2",),
    "stage3": ("layer3",),
    "stage4": ("layer4",),
    "pool": ("avgpool",),
    "logits": ("fc",),
}
"""The layers in the order in which they are computed, and the modules that each adds to the one before."""

FREEZABLE = tuple(LAYERS)[1:-2]
"""The layers up to which a network can be frozen: the stem and the stages."""


class Block(nn.Module):
    """A part of a network that can be computed a second time in the backward pass, to save memory."""

    recomputed = False
    """Keep only the input for the backward pass (see `Trunk.set_grad_checkpointing`)."""

    def compute(self, x: Tensor) -> Tensor:
        """Return the block's maps for maps ``x``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's maps for maps ``x``, shapes as the class says."""
        return _recomputable(self, x) if self.recomputed and torch.is_grad_enabled() else self.compute(x)


class Trunk(nn.Module):
    """A network, or the first part of one, with the modules of `LAYERS`."""

    conv1: nn.Module
    bn1: nn.BatchNorm2d
    relu: nn.Module
    maxpool: nn.Module

    entry: Entry | None = None
    """What the manifest says of its model, with the network's own classes and channels and the preprocessing of its
    weights; ``None`` for a network that was not created by name."""

    frozen_up_to: str | None = None
    """The last frozen layer (see `freeze`)."""

    def forward_stem(self, images: Tensor) -> Tensor:
        """Return the maps (N, 64, H', W') of the stem before its max-pooling, for normalised images (N, C, H, W).

        The images are looked at only after a failure: checking first would cost every call a little, and a traced or
        compiled network cannot check.

        Raises:
            ArgumentError: The images have another shape or type than the network takes.
        """
        try:
            maps: Tensor = self.relu(self.bn1(self.conv1(images)))
        except (RuntimeError, TypeError, ValueError) as error:
            fault = _fault_of(images, first_convolution(self))
            if fault is None:
                raise
            raise ArgumentError(fault) from error
        return maps

    def freeze(self, up_to: str | None = "stage2") -> None:
        """Freeze the first layers: their parameters get no gradient, and batch-norm uses and keeps its statistics.

        It lasts through later calls of ``train()``, on this network or on what contains it. What takes the modules out
        of the network (``BackboneWithFPN``, torch.fx) keeps the parameters frozen but puts batch-norm back in training
        mode: call this network's ``train()`` after theirs. An optimizer must be given the parameters again, or those
        that require a gradient.

        Args:
            up_to: The last layer to freeze, ``stem`` or a stage; layers after it are thawed. ``None`` thaws all.

        Raises:
            UnknownLayerError: ``up_to`` is neither the stem nor a stage.
        """
        if up_to is not None and up_to not in FREEZABLE:
            raise UnknownLayerError(up_to, FREEZABLE)
        for module in self._frozen_modules():
            module.requires_grad_(True).train(self.training)
        self.frozen_up_to = up_to
        for module in self._frozen_modules():
            module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only each block's input for the backward pass, and compute the block again there.

        About a third more computation for less memory. Gradients and batch-norm statistics are those of a network
        without it, bit by bit: the second computation does not count as another batch.
        """
        for module in self.modules():
            if isinstance(module, Block):
                module.recomputed = enable

    def __prepare_scriptable__(self) -> nn.Module:
        """Return the network's torch.fx graph for ``torch.jit.script``, which cannot read ``try`` in `forward_stem`."""
        graph = torch.fx.Tracer().trace(self)
        for node in graph.nodes:
            node.type = None  # an annotation as text, which it cannot read either
        return torch.fx.GraphModule(self, graph)

    def _frozen_modules(self) -> Iterator[nn.Module]:
        children = dict(self.named_children())
        for layer in LAYERS if self.frozen_up_to else ():
            yield from (children[name] for name in LAYERS[layer] if name in children)
            if layer == self.frozen_up_to:
                return


def _fault_of(images: Any, first: nn.Conv2d) -> str | None:
    """Return a sentence that says why a network with this first convolution cannot take the images."""
    channels, dtype = first.in_channels, first.weight.dtype
    wanted = f"Expected normalised images (N, {channels}, H, W)"
    if not isinstance(images, Tensor):
        return f"{wanted} as a tensor, got {type(images).__name__}. resnet_zoo.create_transform makes them."
    shape = tuple(images.shape)
    if len(shape) in (3, 4) and shape[-1] == channels != shape[-3]:
        order = "2, 0, 1" if len(shape) == 3 else "0, 3, 1, 2"
        return f"{wanted}, got {shape}: the channels are last. Use images.permute({order})."
    if len(shape) != 4:
        step = "A single image needs images.unsqueeze(0)." if len(shape) == 3 else "Reshape them to four dimensions."
        return f"{wanted}, got {shape}. {step}"
    if shape[1] != channels:
        return f"{wanted}, got {shape}. Create the network with in_channels={shape[1]}, or convert the images."
    if not all(shape[2:]):
        return f"{wanted}, got {shape}: there are no pixels."
    if images.dtype != dtype:
        wanted_type = str(dtype).removeprefix("torch.")
        return (
            f"Expected normalised {wanted_type} images, as the network's weights are, got {images.dtype}. "
            f"resnet_zoo.create_transform makes them from files and arrays; images.to(torch.{wanted_type}) converts."
        )
    return None


def _recomputable(block: Block, x: Tensor) -> Tensor:
    # The compiler takes no context, and needs none: it moves the update of buffers out of what it computes again.
    contexts: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": partial(_contexts, block)}
    maps: Tensor = checkpoint(block.compute, x, use_reentrant=False, preserve_rng_state=False, **contexts)
    return maps


def _contexts(block: Block) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_kept(block)


@contextlib.contextmanager
def _statistics_kept(block: Block) -> Iterator[None]:
    """Let batch-norm count the batch a second time in copies of its statistics."""
    norms = [norm for norm in block.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training]
    kept = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers(recurse=False)]
    for norm, name, buffer in kept:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)
