"""One training step: forward, backward, update; in the recipe's precision, on one device of many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.recipes import Recipe
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.training.augment import shrink

_SYNC_BUFFERS = {"forward_sync_buffers", "broadcast_buffers"} & {*signature(DistributedDataParallel).parameters}
_OWN_STATISTICS: dict[str, Any] = {max(_SYNC_BUFFERS): False}
"""What keeps each device's batch-norm statistics its own; renamed in torch 2.13."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Learner:
    """A network in training, with its optimiser.

    Parameters and momentum stay in float32; the network's arithmetic is autocast to the recipe's precision. Batch-norm
    statistics are those of each device's own images, and the running ones are the first device's, as upstream's.

    Args:
        model: The network; trained in place.
        recipe: How.
        normalise: Turns uint8 pixels (N, 3, H, W) into float32 inputs.
        processes: The processes that train together.
        compile_network: Use torch.compile.
        class_weights: (K,) float32, how much an image of each class counts in the loss; ``None`` for all alike.
    """

    def __init__(
        self,
        model: ResNet,
        recipe: Recipe,
        normalise: Callable[[Tensor], Tensor],
        processes: Processes,
        *,
        compile_network: bool = False,
        class_weights: Tensor | None = None,
    ) -> None:
        device = processes.device
        self.recipe, self.normalise, self.device = recipe, normalise, device
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = make_optimizer(model, recipe)
        network: nn.Module = self.model
        if processes.num_devices > 1:
            network = DistributedDataParallel(
                network, device_ids=[device] if device.type == "cuda" else None, **_OWN_STATISTICS
            )
        self.network = network
        # CUDA graphs hold for one process; DDP's hooks run between the graphs' parts.
        mode = "reduce-overhead" if device.type == "cuda" and processes.num_devices == 1 else None
        self.compiled: Callable[..., Tensor] | None = None
        if compile_network:
            torch.compiler.reset()  # what was compiled for an earlier seed counts against the number of recompilations
            self.compiled = torch.compile(network, mode=mode, dynamic=False)
        self.part_size = recipe.total_batch // processes.num_devices // recipe.splits
        self.dtype = _DTYPES[recipe.precision]
        self.class_weights = None if class_weights is None else class_weights.to(device)
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=recipe.loss_scale or 1.0, enabled=recipe.loss_scale is not None
        )

    def state(self) -> dict[str, Tensor]:
        """Return every tensor that training changes, by name: parameters, statistics, momentum. They are not copies."""
        momentum = self.optimizer.state
        return {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{
                f"momentum.{name}": momentum[parameter]["momentum_buffer"]
                for name, parameter in self.model.named_parameters()
            },
        }

    def step(self, pixels: Tensor, labels: Tensor, *, lr: float, size: int | None) -> tuple[Tensor, Tensor]:
        """Make one step on this device's part of the batch.

        Args:
            pixels: (N, 3, H, W) uint8.
            labels: (N,) int64.
            lr: Learning rate.
            size: Height and width that images are shrunk to, ``None`` for as they are.

        Returns:
            The mean loss, and how many images were classified right: scalars on the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        inputs = shrink(self.normalise(pixels), size).contiguous(memory_format=torch.channels_last)
        num_parts = min(self.recipe.splits, len(labels))
        loss = torch.zeros((), dtype=torch.float32, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for part in range(num_parts):
            with self._part(part, num_parts):
                part_loss, part_correct = self._backward(inputs[part::num_parts], labels[part::num_parts], num_parts)
            loss += part_loss
            correct += part_correct
        self.scaler.step(self.optimizer)
        self.scaler.update(self.recipe.loss_scale)
        self.optimizer.zero_grad(set_to_none=True)
        return loss, correct

    def _backward(self, inputs: Tensor, labels: Tensor, num_parts: int) -> tuple[Tensor, Tensor]:
        # The smaller last batch of an epoch runs as it is: to compile it takes longer than it saves.
        compiled = self.compiled if len(inputs) == self.part_size else None
        network = self.network if compiled is None else compiled
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            logits = network(inputs)
        how: dict[str, Any] = {"weight": self.class_weights, "label_smoothing": self.recipe.label_smoothing}
        loss = functional.cross_entropy(logits.float(), labels, **how) / num_parts
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).sum()

    @contextlib.contextmanager
    def _part(self, part: int, num_parts: int) -> Iterator[None]:
        """Let only the first part move the running statistics, and only the last one exchange gradients."""
        is_last = part == num_parts - 1
        waits = isinstance(self.network, DistributedDataParallel) and not is_last
        with self.network.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            if part:
                with _still_statistics(self.model):
                    yield
            else:
                yield


@contextlib.contextmanager
def _still_statistics(model: nn.Module) -> Iterator[None]:
    """Keep batch-norm's running statistics as they are, while it normalises by the batch's own."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD over a network's parameters, with a group for each weight decay and factor of the learning rate.

    Upstream has one group: weight decay acts on everything (``decay_all``). Otherwise vectors, which are batch-norm's
    parameters and the biases, are left out of it. Batch-norm's biases have a rate of their own.
    """
    fast = {id(module.bias) for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        decay = recipe.weight_decay if recipe.decay_all or parameter.ndim > 1 else 0.0
        factor = recipe.bias_lr_factor if id(parameter) in fast else 1.0
        found.setdefault((decay, factor), []).append(parameter)
    groups = [{"params": own, "weight_decay": decay, "lr_factor": factor} for (decay, factor), own in found.items()]
    optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    for parameter in model.parameters():  # as the first step would make them, but there from the beginning
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def repeat_exactly(device: torch.device) -> None:
    """Make the same step give the same bits."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
