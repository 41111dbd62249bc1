"""What a network and its feature extractor share: layers with names, frozen layers, blocks computed twice.

Shapes: N batch, C channels, H W height and width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resnet_zoo.errors import ArgumentError, UnknownLayerError

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
"""The layers in the order in which they are computed, and the modules of each: the forward pass as a table."""

BODY, HEAD = tuple(LAYERS)[:-2], tuple(LAYERS)[-2:]
"""What turns images into maps of the last stage, and what turns those into logits."""

_FREEZABLE = BODY[1:]


class Block(nn.Module):
    """A part of a network that can be computed a second time in the backward pass, to save memory."""

    recomputed = False
    """Keep only the input for the backward pass (see `Trunk.set_grad_checkpointing`)."""

    def transform(self, x: Tensor) -> Tensor:
        """Return the block's maps for maps ``x``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's maps for maps ``x``, shapes as the class says."""
        return _recomputable(self, x) if self.recomputed and torch.is_grad_enabled() else self.transform(x)


def _module_at(module: nn.Module, path: str) -> nn.Module:
    """Return ``module.get_submodule(path)``, which torch 2.6 can neither export strictly nor compile in one graph."""
    for name in path.split("."):
        module = getattr(module, name)
    return module


class Trunk(nn.Module):
    """A network, or the first part of one, whose modules are called as in `LAYERS`."""

    frozen_up_to: str | None = None
    """The last frozen layer (see `freeze`)."""

    def compute(self, x: Tensor, layers: Iterable[str], wanted: Collection[str]) -> dict[str, Tensor]:
        """Compute consecutive layers and return the maps of those that are wanted.

        Args:
            x: What the first of the layers takes.
            layers: Names of `LAYERS`; the blocks of a stage (``stage3.0``, ``stage3.1``, ...) may stand for it.
            wanted: Which of them to return.
        """
        maps = {}
        for layer in layers:
            for module in modules_of(layer):
                x = _module_at(self, module)(x)
            if layer == "pool":
                x = torch.flatten(x, 1)
            if layer in wanted:
                maps[layer] = x
        return maps

    def compute_images(self, images: Tensor, layers: Iterable[str], wanted: Collection[str]) -> dict[str, Tensor]:
        """Compute layers from the first one, for normalised images (N, C, H, W).

        The images are looked at only when something failed: checks before it would cost every call a little, and a
        traced or compiled network cannot ask.

        Raises:
            ArgumentError: The images have another shape or type than the network takes, or there are none.
        """
        if _is_empty(images):
            raise ArgumentError(f"Expected at least one image, got an empty batch of shape {tuple(images.shape)}.")
        try:
            return self.compute(images, layers, wanted)
        except (RuntimeError, TypeError, ValueError) as error:
            fault = _fault_of(images, next(self.get_submodule("conv1").parameters()))
            if fault is None:
                raise
            raise ArgumentError(fault) from error

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
        if up_to is not None and up_to not in _FREEZABLE:
            raise UnknownLayerError(up_to, _FREEZABLE)
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

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_up_to is None:
            return []
        layers = BODY[: BODY.index(self.frozen_up_to) + 1]
        children = dict(self.named_children())
        return [children[name] for layer in layers for name in LAYERS[layer] if name in children]


def modules_of(layer: str) -> tuple[str, ...]:
    """Return the paths of the modules that a layer calls, in order."""
    return LAYERS[layer] if layer in LAYERS else (layer.replace("stage", "layer"),)


def _is_empty(images: Tensor) -> bool:
    """Tell whether there is no image; a tracer is not asked, because its answer would become part of the network."""
    is_traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return not is_traced and isinstance(images, Tensor) and images.numel() == 0


def _fault_of(images: Any, weight: Tensor) -> str | None:
    """Return a sentence that says why a network with this first weight (C_out, C, h, w) cannot take the images."""
    channels = weight.shape[1]
    wanted = f"Expected normalised images (N, {channels}, H, W)"
    if not isinstance(images, Tensor):
        return f"{wanted} as a tensor, got {type(images).__name__}. resnet_zoo.create_transform makes them."
    shape = tuple(images.shape)
    if len(shape) in (3, 4) and shape[-1] == channels != shape[-3]:
        order = "2, 0, 1" if len(shape) == 3 else "0, 3, 1, 2"
        return f"{wanted}, got {shape}: the channels are last. Use images.permute({order})."
    if len(shape) != 4:
        return f"{wanted}, got {shape}. A single image needs images.unsqueeze(0)."
    if shape[1] != channels:
        return f"{wanted}, got {shape}. Create the network with in_channels={shape[1]}, or convert the images."
    if images.dtype != weight.dtype:
        wanted_type = str(weight.dtype).removeprefix("torch.")
        return (
            f"Expected normalised {wanted_type} images, as the network's weights are, got {images.dtype}. "
            f"resnet_zoo.create_transform makes them from files and arrays; images.to(torch.{wanted_type}) converts."
        )
    return None


def _recomputable(block: Block, x: Tensor) -> Tensor:
    # The compiler takes no context, and needs none: it moves the update of buffers out of what it computes again.
    contexts: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": partial(_contexts, block)}
    maps: Tensor = checkpoint(block.transform, x, use_reentrant=False, preserve_rng_state=False, **contexts)
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
